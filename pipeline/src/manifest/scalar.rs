//! Checked scalars as Kubernetes and Knative write them: names, quantities, durations. Each parser says what it wants.

use std::time::Duration;

const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// A DNS label: what objects that become part of a host name or a folder are called.
pub(super) fn label(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty()
        || text.len() > 63
        || !text.bytes().all(inner)
        || text.starts_with('-')
        || text.ends_with('-')
    {
        return Err(format!(
            "{text:?} is no name: 1 to 63 lower-case letters, digits and '-', no '-' at the ends (DNS label)"
        ));
    }
    Ok(text.to_owned())
}

/// The name of a Service, which is looked up as a host (DNS-1035).
pub(super) fn service_name(text: &str) -> Result<String, String> {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(format!("{text:?} is no name of a Service: Knative wants a letter at its beginning"));
    }
    label(text)
}

/// The key of a label or an annotation: a name, with or without a domain and a slash in front.
pub(super) fn label_key(text: &str) -> Result<String, String> {
    let (domain, name) = text.split_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    if name.is_empty()
        || label_value(name).is_err()
        || domain.is_some_and(|domain| subdomain(domain).is_err())
    {
        return Err(format!(
            "{text:?} is no key of a label or an annotation: such as app or example.com/app"
        ));
    }
    Ok(text.to_owned())
}

/// The value of a label.
pub(super) fn label_value(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let outer = |symbol: char| symbol.is_ascii_alphanumeric();
    let ends = text.is_empty() || (text.starts_with(outer) && text.ends_with(outer));
    if text.len() > 63 || !ends || !text.bytes().all(inner) {
        return Err(format!(
            "{text:?} is no value of a label: at most 63 letters, digits, '-', '_' and '.', a letter or digit at the ends"
        ));
    }
    Ok(text.to_owned())
}

/// The reference of an image: `[HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST]`.
pub(super) fn image(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "{text:?} is no image: [HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST], the path in lower-case letters"
        )
    };
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let is_digest = |digest: &str| {
        digest
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let is_tag = |tag: &str| {
        (1..=128).contains(&tag.len())
            && !tag.starts_with(['.', '-'])
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let path = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            let (host, port) = host.split_once(':').unwrap_or((host, "0"));
            if subdomain(&host.to_ascii_lowercase()).is_err() || port.parse::<u16>().is_err() {
                return Err(wrong());
            }
            path
        }
        _ => name,
    };
    let is_part = |part: &str| {
        let outer = |symbol: char| symbol.is_ascii_lowercase() || symbol.is_ascii_digit();
        let inner = |symbol: char| outer(symbol) || matches!(symbol, '.' | '_' | '-');
        part.starts_with(outer) && part.ends_with(outer) && part.chars().all(inner)
    };
    if digest.is_some_and(|digest| !is_digest(digest))
        || tag.is_some_and(|tag| !is_tag(tag))
        || !path.split('/').all(is_part)
    {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

/// A DNS subdomain: labels joined by dots (ConfigMaps, Secrets).
pub(super) fn subdomain(text: &str) -> Result<String, String> {
    if text.len() > 253 || text.split('.').any(|part| label(part).is_err()) {
        return Err(format!(
            "{text:?} is no name: lower-case letters, digits, '-' and '.', at most 253 (DNS subdomain)"
        ));
    }
    Ok(text.to_owned())
}

/// A key of a ConfigMap or a Secret.
pub(super) fn data_key(text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 253 || text == "." || text == ".." || !text.bytes().all(known) {
        return Err(format!("{text:?} is no key: letters, digits, '-', '_' and '.'"));
    }
    Ok(text.to_owned())
}

/// The name of an environment variable.
pub(super) fn env_name(text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let bad_start = text.starts_with(|first: char| first.is_ascii_digit());
    if text.is_empty() || bad_start || !text.bytes().all(known) {
        return Err(format!(
            "{text:?} is no name of a variable: letters, digits, '_', '-' and '.', not beginning with a digit"
        ));
    }
    Ok(text.to_owned())
}

/// A CloudEvents attribute in a filter, as Knative allows it.
pub(super) fn attribute(text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !text.starts_with(|first: char| first.is_ascii_lowercase()) || !text.bytes().all(known) {
        return Err(format!(
            "{text:?} is no attribute: lower-case letters and digits, beginning with a letter"
        ));
    }
    Ok(text.to_owned())
}

/// A Kubernetes quantity in thousandths: `500m`, `2`, `1.5`, `256Mi`, `1G`, `1e3`.
pub(super) fn quantity(text: &str) -> Result<u128, String> {
    let wrong = || {
        format!(
            "{text:?} is no quantity: a number such as 2, 0.5 or 1e3, or one with a suffix: m, k, M, G, T, Ki, Mi, Gi, Ti"
        )
    };
    let end = text.find(|symbol: char| !symbol.is_ascii_digit() && symbol != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let thousandths: u128 = match suffix {
        "" => 1_000,
        "m" => 1,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        "Ei" => 1_000 << 60,
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(wrong)?;
            let exponent: u32 = exponent.parse().map_err(|_| wrong())?;
            if exponent > 15 {
                return Err(wrong());
            }
            1_000 * 10u128.pow(exponent)
        }
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty())
        || whole.len() > 18
        || fraction.len() > 9
        || fraction.contains('.')
    {
        return Err(wrong());
    }
    let number = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<u128>() };
    let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
    let parts = number(whole).map_err(|_| wrong())? * scale + number(fraction).map_err(|_| wrong())?;
    parts.checked_mul(thousandths).map(|parts| parts / scale).ok_or_else(|| format!("{text:?} is too much"))
}

/// Bytes of memory: a quantity that is a whole number of bytes, at least one MiB, below which no process starts.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let thousandths = quantity(text)?;
    if text.ends_with('m') {
        return Err(format!("{text:?} is thousandths of a byte: Mi (MiB) or M (MB) is meant"));
    }
    let bytes = u64::try_from(thousandths / 1_000).map_err(|_| format!("{text:?} is too much"))?;
    if bytes < 1 << 20 {
        return Err(format!("{text:?} is {bytes} bytes, at least 1Mi is needed"));
    }
    Ok(bytes)
}

/// Thousandths of a core, at least one.
pub(super) fn cores(text: &str) -> Result<u32, String> {
    match u32::try_from(quantity(text)?) {
        Ok(0) => Err(format!("{text:?} is no core at all: 1m is the least")),
        Ok(millis) => Ok(millis),
        Err(_) => Err(format!("{text:?} is too much")),
    }
}

/// An ISO 8601 duration as Knative's delivery takes it: `PT0.5S`, `P1DT2H`; weeks, months and years have no fixed length
/// there and are refused.
pub(super) fn iso_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: ISO 8601 is wanted, such as PT0.5S, PT10M or P1DT2H");
    let rest = text.strip_prefix('P').ok_or_else(wrong)?;
    let (days, time) = rest.split_once('T').map_or((rest, None), |(days, time)| (days, Some(time)));
    if (days.is_empty() && time.is_none()) || time.is_some_and(str::is_empty) {
        return Err(wrong());
    }
    let days = units(days, &[('D', 86_400.0)]).ok_or_else(wrong)?;
    let time =
        units(time.unwrap_or_default(), &[('H', 3_600.0), ('M', 60.0), ('S', 1.0)]).ok_or_else(wrong)?;
    seconds(days + time).ok_or_else(|| format!("{text:?} is more than a year"))
}

/// A duration as Go writes it, in Knative's annotations: `90s`, `1m30s`, `500ms`.
pub(super) fn go_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: such as 90s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let (text, millis) = match text.strip_suffix("ms") {
        Some(rest) => {
            let start = rest.rfind(|symbol: char| !symbol.is_ascii_digit() && symbol != '.');
            let start = start.map_or(0, |index| index + 1);
            (&rest[..start], rest[start..].parse::<f64>().map_err(|_| wrong())?)
        }
        None => (text, 0.0),
    };
    let units = units(text, &[('h', 3_600.0), ('m', 60.0), ('s', 1.0)]).ok_or_else(wrong)?;
    seconds(units + millis / 1_000.0).ok_or_else(|| format!("{text:?} is more than a year"))
}

/// A duration as Go writes it, in whole seconds.
pub(super) fn whole_seconds(text: &str) -> Result<Duration, String> {
    match go_duration(text)? {
        length if length.subsec_nanos() == 0 => Ok(length),
        _ => Err(format!("{text:?} is no whole number of seconds")),
    }
}

/// Sum of numbers with units, in the order of the units, each at most once; in seconds.
fn units(mut text: &str, units: &[(char, f64)]) -> Option<f64> {
    let mut sum = 0.0;
    let mut units = units.iter();
    while !text.is_empty() {
        let end = text.find(|symbol: char| !symbol.is_ascii_digit() && symbol != '.')?;
        let number: f64 = text[..end].parse().ok()?;
        let unit = text[end..].chars().next()?;
        sum += number * units.find(|(name, _)| *name == unit)?.1;
        text = &text[end + unit.len_utf8()..];
    }
    Some(sum)
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= MAX_DURATION)
}

/// One field of cron: its name, the numbers in it, and the words for them.
type CronField = (&'static str, std::ops::RangeInclusive<usize>, &'static [&'static str]);

const CRON: [CronField; 5] = [
    ("minute", 0..=59, &[]),
    ("hour", 0..=23, &[]),
    ("day", 1..=31, &[]),
    ("month", 1..=12, &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]),
    ("weekday", 0..=6, &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]),
];

/// Five fields of cron that Knative and the local engine read alike: no seconds, no `@daily`, no `L`, `W`, `#`, Sunday is 0.
pub(super) fn schedule(text: &str) -> Result<String, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!(
            "{text:?} is no schedule: five fields of cron are wanted (minute hour day month weekday)"
        ));
    }
    for (field, known) in fields.iter().zip(&CRON) {
        if !field.split(',').all(|part| is_cron_part(part, known)) {
            let (name, numbers, words) = known;
            let words = words.first().zip(words.last()).map_or(String::new(), |(first, last)| {
                format!(", {first} to {last}, {first} being {}", numbers.start())
            });
            return Err(format!(
                "{field:?} in the schedule {text:?} is no {name} of Knative's: {} to {}{words}; ranges from less to more",
                numbers.start(),
                numbers.end()
            ));
        }
    }
    // In Knative the question mark is a star everywhere.
    let schedule = fields.join(" ").replace('?', "*");
    let cron = croner::parser::CronParser::builder()
        .seconds(croner::parser::Seconds::Disallowed)
        .year(croner::parser::Year::Disallowed)
        .build()
        .parse(&schedule)
        .map_err(|error| format!("{text:?} is no schedule: {error}"))?;
    let now = jiff::Zoned::new(jiff::Timestamp::now(), jiff::tz::TimeZone::UTC);
    cron.find_next_occurrence(&now, false)
        .map_err(|_| format!("{text:?} never comes: no year has such a day"))?;
    Ok(schedule)
}

/// A star, a number or a range, with or without a step.
fn is_cron_part(part: &str, (_, numbers, words): &CronField) -> bool {
    let value = |text: &str| {
        let word = words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = word.map(|index| index + numbers.start());
        number
            .or_else(|| is_number.then(|| text.parse().ok()).flatten())
            .filter(|value| numbers.contains(value))
    };
    let (range, step) = part.split_once('/').unwrap_or((part, "1"));
    let is_step =
        step.bytes().all(|byte| byte.is_ascii_digit()) && step.parse::<u32>().is_ok_and(|step| step > 0);
    let is_range = match range.split_once('-') {
        _ if matches!(range, "*" | "?") => true,
        Some((first, last)) => value(first).zip(value(last)).is_some_and(|(first, last)| first <= last),
        None => value(range).is_some(),
    };
    is_step && is_range
}

/// The name of a time zone in the form of the IANA database that this machine knows.
pub(super) fn time_zone(text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+');
    let is_name = text.split('/').all(|part| !part.is_empty() && part.bytes().all(known));
    if !is_name || jiff::tz::TimeZone::get(text).is_err() {
        return Err(format!("{text:?} is no time zone: an IANA name such as Europe/Berlin or UTC is wanted"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: PartialEq + std::fmt::Debug>(
        parse: impl Fn(&str) -> Result<T, String>,
        good: &[(&str, T)],
        bad: &[&str],
    ) {
        for (text, wanted) in good {
            assert_eq!(parse(text).as_ref(), Ok(wanted), "{text}");
        }
        for text in bad {
            let reason = parse(text).expect_err(text);
            assert!(!reason.is_empty(), "{text}");
        }
    }

    #[test]
    fn iso_durations_are_read_exactly() {
        check(
            iso_duration,
            &[
                ("PT0.5S", Duration::from_millis(500)),
                ("PT10M", Duration::from_secs(600)),
                ("P1DT2H", Duration::from_secs(26 * 3600)),
                ("P2D", Duration::from_secs(2 * 86_400)),
                ("PT0S", Duration::ZERO),
            ],
            &[
                "", "P", "PT", "1s", "PT5", "PT5X", "PT1S1S", "PT1S1M", "P1M", "P1W", "P1Y", "-PT1S",
                "PT-1S", "P1DT", "P9999D", "PT1e3S", "pt1s", "PT1..5S",
            ],
        );
    }

    #[test]
    fn go_durations_are_read_exactly() {
        check(
            go_duration,
            &[
                ("90s", Duration::from_secs(90)),
                ("1m30s", Duration::from_secs(90)),
                ("1h", Duration::from_secs(3600)),
                ("500ms", Duration::from_millis(500)),
                ("1s500ms", Duration::from_millis(1500)),
                ("0", Duration::ZERO),
                ("0s", Duration::ZERO),
            ],
            &["", "90", "s", "1d", "-1s", "1s1m", "ms", "99999h", "PT1S"],
        );
    }

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        check(
            quantity,
            &[
                ("500m", 500),
                ("2", 2_000),
                ("1.5", 1_500),
                ("1e3", 1_000_000),
                ("256Mi", 256_000 << 20),
                (".5", 500),
                ("1E", 1_000_000_000_000_000_000_000),
                ("1Ei", 1_000 << 60),
            ],
            &[
                "",
                "Mi",
                "1mi",
                "1 Gi",
                "-1",
                "1.2.3",
                "1GiB",
                "1e99",
                "0x10",
                "9999999999999999999999",
                "1e-3",
                "999999999999999999.999999999Pi",
            ],
        );
        check(
            bytes,
            &[("256Mi", 256 << 20), ("1G", 1_000_000_000), ("0.5Gi", 1 << 29)],
            &["128m", "1", "0", "9999999P"],
        );
        check(cores, &[("500m", 500), ("2", 2_000)], &["0", "0m", "9999999"]);
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        check(
            label,
            &[("a-1", "a-1".into())],
            &["", "A", "-a", "a-", "a.b", "a/b", "a_b", "é", &"a".repeat(64)],
        );
        check(service_name, &[("a-1", "a-1".into())], &["1a", "", "A"]);
        check(
            label_key,
            &[("app", "app".into()), ("example.com/App_1", "example.com/App_1".into())],
            &["", "bad key!", "/a", "a/", "A.com/a", "a/b/c", "-a"],
        );
        check(
            label_value,
            &[("", String::new()), ("a.B_1", "a.B_1".into())],
            &["a b", "-a", &"a".repeat(64)],
        );
        let digest = format!("baton@sha256:{}", "0".repeat(64));
        check(
            image,
            &[
                ("baton", "baton".into()),
                ("localhost:5000/a/b:1.0", "localhost:5000/a/b:1.0".into()),
                ("registry.example/a__b/c-d:v1", "registry.example/a__b/c-d:v1".into()),
                (&digest, digest.clone()),
            ],
            &["", "Foo Bar:::", "a:", "A/b", "a//b", "/a", "a@sha256:0", "host:x/a", "a b"],
        );
        check(subdomain, &[("a.b-c", "a.b-c".into())], &["", ".a", "a..b", "A", "../x"]);
        check(env_name, &[("A_b1", "A_b1".into())], &["", "1A", "A=B", "A B", "Ä"]);
        check(data_key, &[("policy.toml", "policy.toml".into())], &["", "..", "a/b", "a b"]);
        check(attribute, &[("type", "type".into())], &["", "Type", "1a", "ce-type"]);
    }

    #[test]
    fn schedules_mean_the_same_here_and_in_knative() {
        check(
            schedule,
            &[
                ("*/5 * * * *", "*/5 * * * *".into()),
                ("0  3 * JAN,dec MON-FRI", "0 3 * JAN,dec MON-FRI".into()),
                ("*/15 0-23/2 ? * SUN-SAT", "*/15 0-23/2 * * SUN-SAT".into()),
                ("? ? ? ? ?", "* * * * *".into()),
                ("0 0 29 2 *", "0 0 29 2 *".into()),
            ],
            &[
                "",
                "* * * *",
                "* * * * * *",
                "@daily",
                "61 * * * *",
                "0 0 L * *",
                "0 0 * * 5#2",
                "0 0 * * 7",
                "0 0 15W * *",
                "CRON_TZ=UTC * * * *",
                "a b c d e",
                "0 0 * * MON-SUN",
                "0 0 * * 5-2",
                "JAN * * * *",
                "0 0 * MON *",
                "0 0 * * JAN",
                "*/0 * * * *",
                "0 0 31 2 *",
                "1-5-7 * * * *",
                "+5 * * * *",
            ],
        );
    }

    #[test]
    fn time_zones_are_known_and_no_paths() {
        check(
            time_zone,
            &[("Europe/Berlin", "Europe/Berlin".into())],
            &["", "/etc/passwd", "../x", "a b", "a//b", "Mars/Olympus"],
        );
    }
}
