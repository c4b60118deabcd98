//! Log lines in Triton's two forms and as JSON; control characters never reach a sink as they are (H2).

use std::fmt::Write as _;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Level, Record};
use crate::options::LogFormat;

/// A moment of the calendar in UTC.
struct Moment {
    year: i64,
    month: u32,
    day: u32,
    hour: u64,
    minute: u64,
    second: u64,
    micros: u32,
}

impl Moment {
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = civil((seconds / 86_400) as i64);
        let of_day = seconds % 86_400;
        Self {
            year,
            month,
            day,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            micros: since.subsec_micros(),
        }
    }
}

/// Year, month and day of a number of days since 1970, by Howard Hinnant's algorithm.
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// One record as one line with its newline.
pub fn line(format: LogFormat, record: &Record) -> String {
    let moment = Moment::of(record.time);
    let mut line = String::with_capacity(160);
    match format {
        LogFormat::Json => json(&mut line, record, &moment),
        LogFormat::Default => {
            let letter = letter(record.level);
            let Moment { month, day, hour, minute, second, micros, .. } = moment;
            let _ = write!(line, "{letter}{month:02}{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}");
            text(&mut line, record);
        }
        LogFormat::Iso8601 => {
            let _ = write!(line, "{} {}", stamp(&moment, false), letter(record.level));
            text(&mut line, record);
        }
    }
    line.push('\n');
    line
}

fn letter(level: Level) -> char {
    match level {
        Level::Error => 'E',
        Level::Warning => 'W',
        Level::Info | Level::Verbose => 'I',
    }
}

/// A moment as ISO 8601 with microseconds, in UTC.
pub(crate) fn stamp_of(time: SystemTime) -> String {
    stamp(&Moment::of(time), true)
}

fn stamp(moment: &Moment, micros: bool) -> String {
    let Moment { year, month, day, hour, minute, second, .. } = moment;
    let fraction = if micros { format!(".{:06}", moment.micros) } else { String::new() };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

fn text(line: &mut String, record: &Record) {
    let source = record.fields.get("source").and_then(Value::as_str).unwrap_or("naiad");
    let _ = write!(line, " {} ", process::id());
    escape(line, source);
    line.push_str("] ");
    quote(line, &record.message);
    for (name, value) in record.fields.iter().filter(|(name, _)| *name != "source") {
        line.push(' ');
        escape(line, name);
        line.push('=');
        escape(line, &value.to_string());
    }
}

fn json(line: &mut String, record: &Record, moment: &Moment) {
    let level = match record.level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
        Level::Verbose => "verbose",
    };
    let _ = write!(line, r#"{{"time":"{}","level":"{level}","message":"#, stamp(moment, true));
    quote(line, &record.message);
    for (name, value) in record.fields.iter().filter(|(name, _)| !matches!(name.as_str(), "time" | "level" | "message"))
    {
        line.push(',');
        quote(line, name);
        line.push(':');
        escape(line, &value.to_string());
    }
    line.push('}');
}

/// `text` as a JSON string.
fn quote(line: &mut String, text: &str) {
    escape(line, &Value::from(text).to_string());
}

/// `text` with every control character as `\u00xx`; JSON has escaped those below 32 already, so what is left of them
/// stands in plain text.
fn escape(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            let _ = write!(line, "\\u{:04x}", u32::from(character));
        } else {
            line.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record() -> Record {
        let mut record = Record::new(Level::Warning, "say \"hi\"\n").with("model", "m");
        record.time = UNIX_EPOCH + Duration::from_micros(1_709_209_445_000_042);
        record
    }

    #[test]
    fn lines_look_as_tritons() {
        let pid = process::id();
        let expected = format!("W0229 12:24:05.000042 {pid} naiad] \"say \\\"hi\\\"\\n\" model=\"m\"\n");
        assert_eq!(line(LogFormat::Default, &record()), expected);
        let expected = format!("2024-02-29T12:24:05Z W {pid} naiad] \"say \\\"hi\\\"\\n\" model=\"m\"\n");
        assert_eq!(line(LogFormat::Iso8601, &record()), expected);
    }

    #[test]
    fn a_json_line_is_json() {
        let line = line(LogFormat::Json, &record());
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "2024-02-29T12:24:05.000042Z");
        assert_eq!((value["level"].as_str(), value["model"].as_str()), (Some("warning"), Some("m")));
    }
}
