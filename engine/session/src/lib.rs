//! The engine as a library: opens graphs with their plugins, plans, runs, sweeps, watches. The
//! command, a server and tests each own one and nothing of its logic; nothing here prints.
//!
//! ```
//! use kino_session::{Engine, inputs};
//!
//! # let folder = std::env::temp_dir().join(format!("kino-doc-{}", std::process::id()));
//! # let _ = std::fs::create_dir_all(&folder);
//! let engine = Engine::builder().device("cpu").memory("1GB").no_cache().build()?;
//! let graph = engine.open_text("demo.ron", r#"Graph(version: 1,
//!     inputs: {"a": (type: "Real", default: 1)},
//!     nodes: {"sum": (op: "math", in: {"a": "inputs.a"}, with: {"b": 2})},
//!     outputs: {"sum": "sum"})"#, &folder)?;
//! println!("{}", graph.plan(&inputs! { "a" => 5 })?);
//! let run = graph.run(inputs! { "a" => 5 }).out(&folder).on_event(|event| println!("{event:?}"));
//! let done = run.start()?.wait()?;
//! assert_eq!(done.output::<f64>("sum")?, 7.0);
//! # Ok::<(), kino_session::Error>(())
//! ```
//!
//! Frames come out as a tensor:
//!
//! ```no_run
//! use std::sync::Arc;
//! use kino_session::{Engine, Frames, inputs};
//!
//! let engine = Engine::builder().device("auto").memory("12GB").build()?;
//! let graph = engine.open("text_to_video")?;
//! let run = graph.run(inputs! { "prompt" => "a red circle moves right", "seed" => 7 });
//! let done = run.out("out").on_event(|event| println!("{event:?}")).start()?.wait()?;
//! let frames: Arc<Frames> = done.output("frames")?;
//! println!("{:?}", frames.whole()?.dims());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod cancel;
pub mod convert;
mod core;
mod device;
mod endpoint;
mod engine;
mod error;
mod events;
mod graph;
mod inputs;
pub mod inventory;
mod loaded;
pub mod node;
mod notice;
mod output;
mod outputs;
mod plan;
pub mod plugins;
pub mod provenance;
mod records;
mod revisions;
mod run;
pub mod settings;
mod source;
mod sweep;
mod watch;

pub use core::{built_in_nodes, compiled_folder, disk_cache, read_size};
pub use device::DeviceChoice;
pub use engine::{Engine, EngineBuilder};
pub use error::{Error, Result};
pub use events::RunEvent;
pub use graph::{Graph, RunRequest, random_seed};
pub use inputs::Inputs;
/// Fetching models of the Hugging Face Hub; nothing else here reaches the network.
pub use kino_hub as hub;
/// The kernels that a CPU computes with, such as `avx512bf16`: the highest that it has, or what the
/// variable `KINO_CPU` names.
pub use kino_kernels::tier as cpu_kernels;
/// What a family of models is written with, see [`EngineBuilder::family`].
pub use kino_models as models;
pub use kino_node::{AskReading, Cancel, FilePolicy, Frames, RunId, is_of_system};
pub use kino_port::did_you_mean;
pub use kino_runtime::{CacheStatus, Cached, Event, Forecast, Report};
pub use notice::{Notice, OnNotice};
pub use output::FromOutput;
pub use outputs::FileState;
pub use plan::Plan;
pub use plugins::PluginWorker;
pub use provenance::Provenance;
pub use run::{Run, RunResult, WrittenFile};
pub use settings::Settings;
pub use source::{GRAPH_FILES, GRAPHS, built_in as built_in_graph, files_of_graph, no_such_graph};
pub use sweep::{SweepPoint, describe_point};
pub use watch::{WatchEvent, WatchRequest, WatchStop};
