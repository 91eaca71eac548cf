//! Ping sources: timers that send an event.

use super::delivery;
use super::reader::Value;
use super::set::{Set, foreign};
use super::{Ping, scalar};
use crate::event::MAX_DATA;

/// Reads a ping source.
pub(super) fn read<'a>(root: &Value<'a>, set: &Set<'a>) -> Option<Ping> {
    root.fields(|fields| {
        let metadata = set.metadata(fields, scalar::label);
        if let Some(metadata) = &metadata {
            foreign(&metadata.annotations, &[]);
        }
        let spec = fields.required("spec").and_then(|spec| {
            spec.fields(|fields| {
                fields.refused("dataBase64", "use data");
                fields.refused("ceOverrides", "filter on the type or the source of the ping instead");
                let schedule = match fields.get("schedule") {
                    Some(value) => value.parsed(scalar::schedule),
                    None => Some("* * * * *".to_owned()),
                };
                let timezone = fields.get("timezone").and_then(|value| value.parsed(scalar::time_zone));
                let content_type = fields.get("contentType").and_then(|value| value.parsed(content_type));
                let data = fields.get("data").and_then(|value| {
                    let text = value.text()?;
                    if text.len() > MAX_DATA {
                        value.refuse(format!("has {} bytes, at most {MAX_DATA} are allowed", text.len()));
                    }
                    let is_json = content_type.as_deref() == Some("application/json");
                    if is_json && serde_json::from_str::<serde_json::Value>(text).is_err() {
                        value.refuse("is no JSON, as contentType says");
                    }
                    Some(text.to_owned())
                });
                let sink = fields.required("sink").and_then(|value| delivery::destination(&value, set));
                Some((schedule?, timezone, content_type, data, sink?))
            })
        });
        let (schedule, timezone, content_type, data, sink) = spec?;
        Some(Ping { name: metadata?.name, schedule, timezone, content_type, data, sink })
    })
}

fn content_type(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !plain || text.split_once('/').is_none_or(|(kind, rest)| kind.is_empty() || rest.is_empty()) {
        return Err(format!("{text:?} is no content type: such as application/json"));
    }
    Ok(text.to_owned())
}
