//! What `tracing` reports, in the browser's console. tracing-subscriber would do it at several times the size.

/// What is let through, by the target's prefix.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    /// Of several that match, the longest prefix decides, and of two for one prefix the later one.
    rules: Vec<(String, Level)>,
}

/// Levels by verbosity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Filter {
    /// Comma-separated rules: a level, or `target=level`. What is not understood is ignored: a page must not fail for it.
    fn parse(text: &str) -> Self {
        let mut rules = vec![(String::new(), Level::Warn)];
        for rule in text.split(',') {
            let (target, level) = rule.split_once('=').unwrap_or(("", rule));
            if let Some(level) = Level::parse(level.trim()) {
                rules.push((target.trim().into(), level));
            }
        }
        Self { rules }
    }

    fn level(&self, target: &str) -> Level {
        let matching = self.rules.iter().filter(|(prefix, _)| target.starts_with(prefix.as_str()));
        matching.max_by_key(|(prefix, _)| prefix.len()).map_or(Level::Off, |(_, level)| *level)
    }

    fn most_verbose(&self) -> Level {
        self.rules.iter().map(|(_, level)| *level).max().unwrap_or(Level::Off)
    }
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        let levels = [
            ("off", Self::Off),
            ("error", Self::Error),
            ("warn", Self::Warn),
            ("info", Self::Info),
            ("debug", Self::Debug),
            ("trace", Self::Trace),
        ];
        levels.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, level)| level)
    }
}

#[cfg(target_arch = "wasm32")]
pub(crate) use console::start;

#[cfg(target_arch = "wasm32")]
mod console {
    use std::fmt::{self, Write as _};

    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        level_filters::LevelFilter,
        span,
    };
    use wasm_bindgen::JsValue;

    use super::{Filter, Level};

    /// Sends events to the console from now on. The first call counts.
    pub(crate) fn start(filter: &str) {
        let _ = tracing::subscriber::set_global_default(Console(Filter::parse(filter)));
    }

    struct Console(Filter);

    impl Subscriber for Console {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.is_event() && level(metadata) <= self.0.level(metadata.target())
        }

        fn max_level_hint(&self) -> Option<LevelFilter> {
            Some(match self.0.most_verbose() {
                Level::Off => LevelFilter::OFF,
                Level::Error => LevelFilter::ERROR,
                Level::Warn => LevelFilter::WARN,
                Level::Info => LevelFilter::INFO,
                Level::Debug => LevelFilter::DEBUG,
                Level::Trace => LevelFilter::TRACE,
            })
        }

        fn event(&self, event: &Event<'_>) {
            let mut line = Line(String::from(event.metadata().target()));
            event.record(&mut line);
            let line = JsValue::from_str(&line.0);
            match level(event.metadata()) {
                Level::Error | Level::Off => web_sys::console::error_1(&line),
                Level::Warn => web_sys::console::warn_1(&line),
                Level::Info => web_sys::console::info_1(&line),
                // console.trace would print a stack.
                Level::Debug | Level::Trace => web_sys::console::debug_1(&line),
            }
        }

        // Spans are not shown.
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn level(metadata: &Metadata<'_>) -> Level {
        match *metadata.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => Level::Trace,
        }
    }

    /// An event in one line: target, message, fields.
    struct Line(String);

    impl Visit for Line {
        // The default prints it exactly, which takes the better part of a decimal library. Nothing of ours logs one.
        fn record_f64(&mut self, _: &Field, _: f64) {}

        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            // Writing to a String does not fail.
            let _ = match field.name() {
                "message" => write!(self.0, ": {value:?}"),
                name => write!(self.0, " {name}={value:?}"),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_specific_rule_decides() {
        let filter = Filter::parse("peerloom_webrtc=debug, info,peerloom_webrtc::stun=off");
        assert_eq!(filter.level("peerloom_node::dial"), Level::Info);
        assert_eq!(filter.level("peerloom_webrtc::sctp"), Level::Debug);
        assert_eq!(filter.level("peerloom_webrtc::stun"), Level::Off);
        assert_eq!(filter.most_verbose(), Level::Debug);
    }

    #[test]
    fn warnings_are_shown_unless_told_otherwise() {
        assert_eq!(Filter::parse("").level("x"), Level::Warn);
        assert_eq!(Filter::parse("nonsense,=,x=y").level("x"), Level::Warn);
        assert_eq!(Filter::parse("ERROR").level("x"), Level::Error);
    }

    #[test]
    fn later_rule_for_the_same_target_wins() {
        assert_eq!(Filter::parse("info,debug").level("x"), Level::Debug);
    }
}
