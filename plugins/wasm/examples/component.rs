//! Turns a WebAssembly module that `wit-bindgen` made into a component: `component IN OUT`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("component IN OUT".into());
    };
    let module = std::fs::read(&from)?;
    let mut encoder = wit_component::ComponentEncoder::default().validate(true).module(&module)?;
    std::fs::write(&to, encoder.encode()?)?;
    Ok(())
}
