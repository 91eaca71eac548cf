//! The short commands: each one call and its output.

use reqwest::Method;

use super::client::{Client, Failure, if_match};
use super::output;
use crate::admin::wire::{Change, History, Model, ModelList, Worker};
use crate::config::Limits;
use crate::error::Code;

pub(super) fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let list: ModelList = client.send(client.request(Method::GET, "/v1/models"))?;
    if json {
        return output::json(&list);
    }
    let row = |model: &Model| {
        vec![
            model.model.clone(),
            model.active.clone().unwrap_or_else(|| "-".to_owned()),
            model.generation.to_string(),
            model.state.clone(),
            model.digest.as_deref().map_or("-", output::short).to_owned(),
        ]
    };
    output::table(
        &["MODEL", "VERSION", "GENERATION", "STATE", "DIGEST"],
        &list.models.iter().map(row).collect::<Vec<_>>(),
    );
    Ok(())
}

pub(super) fn show(client: &Client, model: &str, json: bool) -> Result<(), Failure> {
    let model: Model = client.send(client.request(Method::GET, &format!("/v1/models/{}", segment(model))))?;
    if json {
        return output::json(&model);
    }
    let active =
        model.active.as_deref().map_or_else(|| "nothing".to_owned(), |version| format!("version {version}"));
    output::line(&format!("{}: {}, {active}, generation {}", model.model, model.state, model.generation));
    if let Some(reason) = &model.reason {
        output::line(&format!("reason: {reason}"));
    }
    if model.degraded {
        output::line("degraded: its workers die again and again");
    }
    if !model.pinned_libraries.is_empty() {
        output::line(&format!("libraries that stay mapped: {}", model.pinned_libraries.join(", ")));
    }
    if !model.workers.is_empty() {
        let worker = |worker: &Worker| {
            vec![
                worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                match worker.pause_s {
                    Some(pause) => format!("{}, next start in {pause:.0} s", worker.state),
                    None => worker.state.clone(),
                },
                worker.restarts.to_string(),
                output::size(worker.resident_bytes),
                worker.last_death.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        };
        let rows: Vec<Vec<String>> = model.workers.iter().map(worker).collect();
        output::table(&["WORKER", "STATE", "RESTARTS", "MEMORY", "LAST DEATH"], &rows);
    }
    let rows: Vec<Vec<String>> = model
        .versions
        .iter()
        .map(|version| {
            let bytes = version.parts.get("artifact").map_or(0, |part| part.size);
            let parts: Vec<&str> = version.parts.keys().map(String::as_str).collect();
            vec![
                version.version.clone(),
                version.state.clone(),
                version.created_at.clone(),
                output::size(bytes),
                output::short(&version.digest).to_owned(),
                parts.join(","),
            ]
        })
        .collect();
    output::table(&["VERSION", "STATE", "CREATED", "SIZE", "DIGEST", "PARTS"], &rows);
    Ok(())
}

pub(super) fn history(client: &Client, model: Option<&str>, limit: usize, json: bool) -> Result<(), Failure> {
    let mut request = client.request(Method::GET, "/v1/history").query(&[("limit", limit)]);
    if let Some(model) = model {
        request = request.query(&[("model", model)]);
    }
    let history: History = client.send(request)?;
    if json {
        return output::json(&history);
    }
    let rows: Vec<Vec<String>> = history
        .entries
        .iter()
        .map(|entry| {
            vec![
                entry.at.clone(),
                entry.model.clone(),
                entry.generation.to_string(),
                entry.version.clone().unwrap_or_else(|| "-".to_owned()),
                entry.reason.clone(),
                entry.digest.as_deref().map_or("-", output::short).to_owned(),
                entry.broken_rules.join(","),
            ]
        })
        .collect();
    output::table(&["AT", "MODEL", "GENERATION", "VERSION", "REASON", "DIGEST", "BROKEN RULES"], &rows);
    Ok(())
}

pub(super) fn activate(
    client: &Client,
    model: &str,
    version: &str,
    generation: Option<u64>,
    json: bool,
) -> Result<(), Failure> {
    let path = format!("/v1/models/{}/versions/{}:activate", segment(model), segment(version));
    changed(&client.send(if_match(client.request(Method::POST, &path), generation))?, json)
}

pub(super) fn rollback(
    client: &Client,
    model: &str,
    generation: Option<u64>,
    json: bool,
) -> Result<(), Failure> {
    let path = format!("/v1/models/{}:rollback", segment(model));
    changed(&client.send(if_match(client.request(Method::POST, &path), generation))?, json)
}

pub(super) fn remove(
    client: &Client,
    model: &str,
    version: Option<&str>,
    force: bool,
    json: bool,
) -> Result<(), Failure> {
    let path = match version {
        Some(version) => format!("/v1/models/{}/versions/{}", segment(model), segment(version)),
        None => format!("/v1/models/{}?force={force}", segment(model)),
    };
    client.send_raw(client.request(Method::DELETE, &path))?;
    if json {
        return output::json(&serde_json::json!({ "model": model, "version": version, "state": "removed" }));
    }
    output::line(&match version {
        Some(version) => format!("removed version {version} of {model}"),
        None => format!("removed {model}"),
    });
    Ok(())
}

/// What a push, an activation or a roll-back came to.
pub(super) fn changed(change: &Change, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(change);
    }
    let version = change.version.as_deref().unwrap_or("-");
    let digest = change.digest.as_deref().map_or("-", output::short);
    let text = match (change.version.is_some(), change.unchanged) {
        (false, _) => format!("{}: every check passed; nothing was kept (dry run)", change.model),
        (true, true) => format!("{} version {version}: unchanged, {}", change.model, change.state),
        (true, false) => {
            format!(
                "{} version {version}: {}, generation {}, {digest}",
                change.model, change.state, change.generation
            )
        }
    };
    output::line(&text);
    for warning in &change.warnings {
        output::line(&format!("  note: {warning}"));
    }
    Ok(())
}

pub(super) fn limits(json: bool) -> Result<(), Failure> {
    let table = Limits::default().table();
    if json {
        return output::json(&table);
    }
    let rows: Vec<Vec<String>> = table
        .into_iter()
        .map(|limit| vec![limit.name.to_owned(), limit.value, limit.reason.to_owned()])
        .collect();
    output::table(&["LIMIT", "VALUE", "WHAT IT BOUNDS"], &rows);
    Ok(())
}

pub(super) fn errors(code: Option<&str>) -> Result<(), Failure> {
    match code {
        Some(id) => {
            let code = Code::from_id(&id.to_uppercase()).ok_or_else(|| {
                Failure::Usage(format!("there is no error code {id:?}; `baton errors` lists them"))
            })?;
            output::line(code.page().trim_end());
        }
        None => {
            let rows: Vec<Vec<String>> =
                Code::ALL.iter().map(|code| vec![code.id().to_owned(), code.summary().to_owned()]).collect();
            output::table(&["CODE", "MEANING"], &rows);
        }
    }
    Ok(())
}

/// A name as one segment of a path, whatever it holds: the server says what is wrong with it, not the URL parser.
pub(super) fn segment(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    // A segment of dots alone would be resolved away before it is sent.
    let dots = text.bytes().all(|byte| byte == b'.');
    text.bytes()
        .map(|byte| if keep(byte) && !dots { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
