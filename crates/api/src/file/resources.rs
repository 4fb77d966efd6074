//! What an instance may use.

use std::num::NonZeroU32;

use mainstay_model::service::LimitsSpec;
use mainstay_model::traffic::REQUESTS;
use toml::de::DeValue;

use super::refusal::{Refused, quoted};
use super::units::{display_size, parse_size};
use super::walk::{Entry, Section};
use super::{later, limits};

const EXAMPLE: &str =
    "write for instance `limits = { cpu = 1.0, memory = \"256MiB\", pids = 100 }`";

/// The table `limits`: what an instance may use, and how many requests it gets at once.
pub(super) fn limits_of(entry: &Entry<'_, '_>) -> Option<(LimitsSpec, Option<NonZeroU32>)> {
    let read = |s: &mut Section<'_, '_>| {
        let cpu_thousandths = s.optional("cpu", cpu);
        let memory_bytes = s.optional("memory", memory);
        let pids = s.optional("pids", |e| e.integer(limits::PIDS));
        let requests = s.optional("requests", |e| {
            let most = e.integer(REQUESTS)?;
            Some(NonZeroU32::new(most).expect("the range does not hold zero"))
        });
        let limits = LimitsSpec {
            cpu_thousandths: cpu_thousandths?,
            memory_bytes: memory_bytes?,
            pids: pids?,
        };
        Some((limits, requests?))
    };
    entry
        .section("a table", Some(EXAMPLE.to_owned()), later::LIMITS, read)
        .flatten()
}

/// Processors, as `1`, `1.5` or `0.25`.
fn cpu(entry: &Entry<'_, '_>) -> Option<u32> {
    let (low, high) = (
        limits::CPU_THOUSANDTHS.start(),
        limits::CPU_THOUSANDTHS.end(),
    );
    let expected = format!(
        "a number of processors from {} to {}, with up to three decimals",
        display_cpu(*low),
        display_cpu(*high)
    );
    let typed = match entry.value() {
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::String(text) => {
            entry.wrong_type(&expected, likely_cpu(text));
            return None;
        }
        _ => {
            entry.wrong_type(&expected, Some("write for instance `cpu = 0.5`".to_owned()));
            return None;
        }
    };
    let read = parse_cpu(&typed).filter(|cpu| limits::CPU_THOUSANDTHS.contains(cpu));
    if read.is_none() {
        let message = format!("expected {expected}, found {}", quoted(&typed));
        let refused = Refused::value(message);
        let help = "one processor is `1.0`; without `cpu` an instance may use all there are";
        entry.refuse(refused.help(help));
    }
    read
}

/// Exactly, which a floating point number would not be.
fn parse_cpu(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) {
        return None;
    }
    let decimals = decimals.trim_end_matches('0');
    if decimals.len() > 3 {
        return None;
    }
    format!("{whole}{decimals:0<3}").parse().ok()
}

/// Thousandths of a processor so that [`parse_cpu`] reads them back.
fn display_cpu(thousandths: u32) -> String {
    let decimals = format!("{:03}", thousandths % 1000);
    let decimals = decimals.trim_end_matches('0');
    match decimals {
        "" => format!("{}", thousandths / 1000),
        _ => format!("{}.{decimals}", thousandths / 1000),
    }
}

/// `0.5` in quotes, and what other tools write: `500m`, `50%`.
fn likely_cpu(text: &str) -> Option<String> {
    let thousandths = if let Some(thousandths) = text.strip_suffix('m') {
        thousandths.parse().ok()
    } else if let Some(percent) = text.strip_suffix('%') {
        percent.parse().ok().and_then(|p: u32| p.checked_mul(10))
    } else if text.contains("${") {
        return Some("variables are filled in only where a text is expected".to_owned());
    } else {
        return parse_cpu(text).map(|_| format!("write it without quotes: {text}"));
    };
    thousandths.map(|t: u32| format!("did you mean `cpu = {}`?", display_cpu(t)))
}

fn memory(entry: &Entry<'_, '_>) -> Option<u64> {
    entry.text("a size, as in `256MiB`", "`memory = \"256MiB\"`", |text| {
        let size = parse_size(text)?;
        if limits::MEMORY.contains(&size) {
            return Ok(size);
        }
        let (low, high) = (limits::MEMORY.start(), limits::MEMORY.end());
        Err(Refused::value(format!(
            "a limit of memory is from {} to {}; found {}",
            display_size(*low),
            display_size(*high),
            quoted(text)
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_read_exactly_and_read_back() {
        for (text, thousandths) in [
            ("1", 1000),
            ("1.0", 1000),
            ("0.25", 250),
            ("0.01", 10),
            ("2.125", 2125),
            ("0.1000", 100),
        ] {
            assert_eq!(parse_cpu(text), Some(thousandths), "{text}");
            assert_eq!(parse_cpu(&display_cpu(thousandths)), Some(thousandths));
        }
        for text in [
            "",
            ".5",
            "1.",
            "-1",
            "+1",
            "1e3",
            "inf",
            "nan",
            "0.0001",
            "99999999999",
        ] {
            assert_eq!(parse_cpu(text), None, "{text}");
        }
    }

    #[test]
    fn what_other_tools_write_is_guessed() {
        let meant = |typed| likely_cpu(typed).unwrap_or_default();
        assert!(meant("500m").contains("`cpu = 0.5`"));
        assert!(meant("150%").contains("`cpu = 1.5`"));
        assert!(meant("0.5").contains("without quotes"));
        assert_eq!(meant("much"), "");
    }
}
