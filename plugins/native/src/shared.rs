//! Values on their way between engine and worker: tensors and bytes lie in files that both see,
//! everything else is said on the wire.

mod codec;
mod engine;
mod places;
mod worker;

pub(crate) use engine::{EngineDecoder, EngineEncoder, OpaqueTable};
pub(crate) use places::{OutgoingFiles, SharedFolders, WorkerFolders};
pub(crate) use worker::SharedAllocator;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::DType;
    use kino_host::PluginValue;
    use kino_node::Value;

    use super::*;
    use crate::allocator::TensorAllocator;

    fn left(folder: &std::path::Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    fn list(items: Vec<PluginValue>) -> PluginValue {
        PluginValue::List(items.into_iter().map(|item| (Arc::from(""), item)).collect())
    }

    #[test]
    fn of_what_was_sent_by_half_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let places = SharedFolders { memory: None, disk: folder.path().to_owned() };
        let bytes = || PluginValue::Bytes([1, 2, 3].into());
        let mut deep = PluginValue::Value(Value::Int(0));
        for _ in 0..60 {
            deep = list(vec![deep]);
        }
        let mut kept = OpaqueTable::default();
        let mut sending = EngineEncoder::new(&places, &mut kept);
        assert!(sending.encode(&list(vec![bytes(), deep.clone()])).is_err());
        drop(sending);
        assert_eq!(left(folder.path()), 0);
        let allocator = SharedAllocator::new(places.clone());
        let tensor = TensorAllocator::tensor(&allocator, DType::F32, &[2], true).unwrap();
        let tensor = tensor.finish().unwrap();
        let mut outbox = OutgoingFiles::default();
        assert!(allocator.encode(&list(vec![tensor, bytes(), deep]), &mut outbox).is_err());
        drop(outbox);
        assert_eq!(left(folder.path()), 0);
    }

    #[test]
    fn what_does_not_fit_into_memory_lies_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Some(folder.path().join("full"));
        let places = SharedFolders { memory, disk: folder.path().to_owned() };
        let mut outbox = OutgoingFiles::default();
        let file = places.write(&PluginValue::Bytes([7; 9].into()), &mut outbox).unwrap();
        assert_eq!(std::fs::read(places.path(&file).unwrap()).unwrap(), [7; 9]);
        let error = places.create(1 << 60).unwrap_err();
        assert!(error.to_string().contains("there is no room"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("TMPDIR")));
        for elsewhere in ["/etc/passwd", "d/../x", "d..", "x1", "m1/.."] {
            assert!(places.path(elsewhere).is_err(), "{elsewhere}");
        }
    }
}
