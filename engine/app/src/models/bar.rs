//! How far a pull, a verification or a conversion is.

use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kino_session::hub::PullEvent;

use crate::render::diagnostics::warn_plain;
use crate::screen::Screen;

/// A bar that fills, where somebody watches.
pub(super) struct Bar(Mutex<ProgressBar>);

impl Bar {
    /// One at its beginning.
    pub(super) fn new(screen: &Screen) -> Self {
        let is_shown = screen.is_terminal && !screen.quiet && !screen.json;
        let target = match is_shown {
            true => ProgressDrawTarget::stderr_with_hz(10),
            false => ProgressDrawTarget::hidden(),
        };
        let template =
            "{bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {msg}";
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style);
        Bar(Mutex::new(bar))
    }

    /// Changes it.
    pub(super) fn with(&self, change: impl FnOnce(&ProgressBar)) {
        change(&self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// Shows how far a pull is.
    pub(super) fn show(&self, event: &PullEvent<'_>, screen: &Screen) {
        self.with(|bar| match event {
            PullEvent::Planned { bytes, present, .. } => {
                bar.set_length(*bytes);
                bar.set_position(*present);
                // The rate is that of what arrives now.
                bar.reset_eta();
            }
            PullEvent::Arrived { bytes } => bar.inc(*bytes),
            PullEvent::Lost { bytes, .. } => {
                bar.set_position(bar.position().saturating_sub(*bytes));
            }
            PullEvent::Waiting { path } => {
                let said = format!("another process fetches {path}; waiting for it");
                bar.suspend(|| warn_plain(screen, &said, None));
            }
            PullEvent::Retrying { reason } => {
                bar.set_message(kino_port::escape_line(&format!("again: {reason}")).into_owned());
            }
            PullEvent::Done { path } => bar.set_message(kino_port::escape_line(path).into_owned()),
        });
    }

    /// Takes it away.
    pub(super) fn end(&self) {
        self.with(ProgressBar::finish_and_clear);
    }
}
