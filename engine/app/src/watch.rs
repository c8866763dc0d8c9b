//! `kino watch`: runs a graph, and again whatever changes, until it is interrupted.

mod build;
mod view;

use std::sync::Arc;

use kino_session::{Cancel, WatchEvent};

use crate::args;
use crate::failure::{Exit, Failure};
use crate::render::progress::Watch;
use crate::run::preview::Previews;
use crate::screen::Screen;
use crate::{interrupt, logs, setup};
use view::View;

/// Runs a graph and watches it.
///
/// # Errors
/// When there is no such graph to begin with, or the machine does not allow it.
pub(crate) fn run(args: &args::Watch, screen: &Screen, verbose: u8) -> Result<Exit, Failure> {
    if args.source.graph.as_os_str() == "-" {
        return Err(Failure::usage("the standard input cannot be watched")
            .hint("write the graph to a file"));
    }
    let watch = Watch::new(screen, args.json_previews);
    let _trace = logs::start(screen, verbose, None, watch.bars())?;
    let target = &args.target;
    let engine = setup::engine(
        &args.source,
        (target, &[]),
        true,
        (screen, setup::notice(screen, watch.bars().as_ref(), true)),
    )?;
    let request = engine.watch(&args.source.graph).inputs(target.set.as_slice().into());
    let request = request.out(&target.out).until(target.until.as_deref());
    let request = request.overwrite(target.overwrite);
    let previews = args.preview.as_deref().map(Previews::into_folder).transpose()?;
    let (interrupted, stop) = (Cancel::default(), request.stopper());
    interrupt::watch_and(&interrupted, move || stop.stop());
    let (view, stop) = (Arc::new(View::new(screen, watch)), request.stopper());
    if args.build {
        build::start(&args.source.graph, &view, screen)?;
    }
    request.run(move |event| {
        if let (Some(previews), WatchEvent::Run(event)) = (&previews, &event) {
            previews.see(event);
        }
        view.see(event);
        if view.is_closed() {
            stop.stop();
        }
    })?;
    // Else nobody reads on.
    Ok(if interrupted.is_cancelled() { Exit::Cancelled } else { Exit::Good })
}
