//! How components are compiled and run.

use wasmtime::{Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

/// Stack of a plugin.
const STACK: usize = 512 << 10;
/// Stack of a plugin and of the host's functions that it calls.
const WHOLE_STACK: usize = 2 << 20;
/// Instances that may be alive at a time.
const INSTANCES: u32 = 256;

/// How components are compiled and run.
pub(crate) fn config(pooled: bool) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.cranelift_opt_level(OptLevel::Speed);
    config.relaxed_simd_deterministic(true);
    config.max_wasm_stack(STACK);
    config.async_stack_size(WHOLE_STACK);
    config.concurrency_support(false);
    config.wasm_memory64(false);
    config.generate_address_map(false);
    config.allocation_strategy(match pooled {
        true => InstanceAllocationStrategy::Pooling(pool()),
        false => InstanceAllocationStrategy::OnDemand,
    });
    if !pooled {
        config.memory_reservation(0);
        config.memory_guard_size(1 << 16);
        config.memory_reservation_for_growth(64 << 20);
    }
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES);
    pool.total_core_instances(INSTANCES * 4);
    pool.total_memories(INSTANCES);
    pool.total_tables(INSTANCES * 4);
    pool.total_stacks(INSTANCES);
    pool.max_core_instances_per_component(32);
    pool.max_memories_per_component(8);
    pool.max_tables_per_component(32);
    pool.max_tables_per_module(8);
    pool.table_elements(100_000);
    pool.linear_memory_keep_resident(256 << 10);
    pool.table_keep_resident(64 << 10);
    pool
}
