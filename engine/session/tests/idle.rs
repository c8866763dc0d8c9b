//! To check graphs starts no threads: what checks them on each save, or a thousand of them, would
//! wait for those. A process of its own, so that no other test starts some.
#![cfg(target_os = "linux")]

use std::path::Path;

use kino_session::Engine;

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn no_thread_is_started_to_check_a_graph() {
    let engine = Engine::builder().device("cpu").memory("16GB").no_cache().build().unwrap();
    let graphs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../graphs");
    let before = threads();
    for name in ["text_to_video", "image_to_video", "long_video", "video_to_video", "upscale"] {
        let graph = engine.open(graphs.join(name).with_extension("ron"));
        let checked = graph.unwrap_or_else(|error| panic!("{name}: {error}")).check();
        checked.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(threads(), before, "{name}");
    }
}
