//! `kino models convert`: a model, or a part of one, in another form.

use kino_node::Cancel;
use kino_session::convert::{self, ConvertEvent, ConvertRequest, ConvertTo, ConvertedPart};

use super::bar::Bar;
use crate::args;
use crate::failure::{Exit, Failure};
use crate::interrupt;
use crate::json::{Value, json};
use crate::render::quantity::{bytes, count};
use crate::render::table::{Align, Table};
use crate::screen::Screen;
use crate::setup;

/// Converts, and says what came of it.
///
/// # Errors
/// When there is no such model, the destination does not hold it, or it cannot be written.
pub(super) fn run(args: &args::Convert, screen: &Screen) -> Result<Exit, Failure> {
    let request = ConvertRequest {
        source: args.source.clone(),
        destination: args.destination.clone(),
        part: args.part.clone(),
        to: type_of(args.to.as_deref())?,
        force: args.force,
        dry_run: args.dry_run,
    };
    let settings = setup::settings()?;
    let cancel = Cancel::default();
    interrupt::watch(&cancel);
    let bar = Bar::new(screen);
    let tell = |event: ConvertEvent<'_>| {
        bar.with(|bar| match event {
            ConvertEvent::Planned(bytes) => bar.set_length(bytes),
            ConvertEvent::Part(name) => bar.set_message(name.to_owned()),
            ConvertEvent::Written(bytes) => bar.inc(bytes),
        });
    };
    let done = convert::convert(&settings, &request, &tell, &|| cancel.is_cancelled());
    bar.end();
    let done = done?;
    if screen.json {
        let parts: Vec<Value> = done.iter().map(as_json).collect();
        screen.print_json(&json!({
            "source": request.source, "destination": request.destination,
            "bytes": done.iter().map(|part| part.bytes).sum::<u64>(),
            "dry_run": request.dry_run, "parts": parts,
        }))?;
        return Ok(Exit::Good);
    }
    let out = screen.out;
    let left = [Align::Left, Align::Left, Align::Right, Align::Right, Align::Left];
    let mut table = Table::new(&left);
    for part in &done {
        let hash = part.sha256.as_ref().map_or(String::new(), |hash| format!("sha256 {hash}"));
        let tensors = count(part.tensors, "tensor");
        let types = types(part);
        table.row([out.name(&part.name), types, bytes(part.bytes), tensors, out.dim(&hash)]);
    }
    let mut text = table.render();
    for part in &done {
        text.extend(part.notes.iter().map(|note| format!("{} {note}\n", out.dim("note"))));
    }
    let place = request.destination.display().to_string();
    let place = if request.dry_run { format!("would write {place}") } else { place };
    screen.print(&format!("{text}{}\n", out.dim(&place)))?;
    Ok(Exit::Good)
}

/// The type that is asked for.
fn type_of(name: Option<&str>) -> Result<ConvertTo, Failure> {
    let Some(name) = name else { return Ok(ConvertTo::Same) };
    let named = ConvertTo::named();
    let wanted = name.to_lowercase();
    match named.iter().find(|(own, _)| *own == wanted) {
        Some((_, to)) => Ok(*to),
        None => {
            let known: Vec<&str> = named.iter().map(|(own, _)| own.as_str()).collect();
            let failure = Failure::usage(format!("there is no type {name}"));
            Err(failure.hint(format!("known are {}", known.join(", "))))
        }
    }
}

/// The types of a part, those that most of it has first.
fn types(part: &ConvertedPart) -> String {
    let mut types: Vec<(&String, &u64)> = part.types.iter().collect();
    types.sort_by_key(|(name, elements)| (std::cmp::Reverse(**elements), *name));
    types.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn as_json(part: &ConvertedPart) -> Value {
    let types = part.types.iter().map(|(name, n)| json!({ "type": name, "elements": n }));
    json!({
        "part": part.name, "path": part.path, "bytes": part.bytes, "tensors": part.tensors,
        "types": types.collect::<Vec<_>>(), "sha256": part.sha256, "notes": part.notes,
    })
}
