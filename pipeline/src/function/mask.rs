//! `fn mask`: `dataset.updated` with private columns in, `dataset.updated` of the masked rows out.
//!
//! The masked rows are a dataset of their own, `[mask] into` of the policy or the name with `-masked` behind it, so that
//! what follows can never take the private ones by mistake. The salt is in `BATON_MASK_SALT`: it belongs in a secret, not in a policy
//! that everybody reads. A column that the policy names and the file lacks is an error: nothing passes half masked.

use std::sync::Arc;

use baton_data::Policy;
use serde_json::json;

use super::validate::Updated;
use super::{Call, Context, Failure};
use crate::event::Event;
use crate::store::checked_name;

/// The salt's variable.
pub(crate) const SALT: &str = "BATON_MASK_SALT";

/// The function.
pub(super) fn call(context: Arc<Context>, event: Event) -> Call {
    Box::pin(async move { masked(&context, &event).await })
}

async fn masked(context: &Context, event: &Event) -> Result<Option<Event>, Failure> {
    let updated = Updated::read(event)?;
    let policy = Policy::parse(&context.policy).map_err(|error| Failure::Never(error.to_string()))?;
    let into = target(&policy, &updated.dataset)?;
    // A trigger on every dataset.updated brings this function's own answers, and other datasets.
    let is_other = policy.dataset.as_deref().is_some_and(|dataset| dataset != updated.dataset);
    if is_other || into == updated.dataset || event.source == format!("/baton/functions/{}", context.name) {
        return Ok(None);
    }
    let bytes = context.store.get(&updated.digest, policy.limits.max_bytes).await?;
    let salt = std::env::var(SALT).unwrap_or_default();
    let file = updated.file.clone();
    let work = move || baton_data::mask(&file, &bytes, &policy, salt.as_bytes());
    #[allow(clippy::disallowed_methods, reason = "functions are on no request path of the runner")]
    let masked = tokio::task::spawn_blocking(work).await;
    let masked = masked
        .map_err(|error| Failure::Never(format!("the masking did not end: {error}")))?
        .map_err(|error| Failure::Never(format!("{} {}: {error}", updated.dataset, updated.digest)))?;
    let reference = context.store.put(masked.csv).await?;
    let mut data = json!({
        "dataset": into,
        "digest": reference.digest,
        "size": reference.size,
        "file": format!("{into}.csv"),
    });
    if let Some(origin) = updated.origin {
        data["origin"] = origin.into();
    }
    Ok(Some(event.reply(&context.name, "dataset.updated", &into, data)))
}

/// The dataset that masked rows of this one make.
///
/// # Errors
/// [`Failure::Never`] for a name that cannot be.
pub(crate) fn target(policy: &Policy, dataset: &str) -> Result<String, Failure> {
    let into = policy.mask.into.clone().unwrap_or_else(|| match dataset.ends_with("-masked") {
        true => dataset.to_owned(),
        false => format!("{dataset}-masked"),
    });
    checked_name(&into)?;
    Ok(into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    const POLICY: &str = "dataset = \"people\"\n[mask.columns]\nname = \"remove\"\nage = \"bucket=10\"\n";

    async fn call_with(policy: &str, dataset: &str, source: &str) -> (Store, Result<Option<Event>, Failure>) {
        let store = Store::open("memory:///").expect("a store");
        let data = store.put(&b"name,age\nAnn,34\nBob,47\n"[..]).await.expect("stored");
        let context = Context {
            name: "mask".into(),
            store: store.clone(),
            server: String::new(),
            token: None,
            policy: policy.into(),
        };
        let data = json!({ "dataset": dataset, "digest": data.digest, "file": "people.csv", "origin": "ci" });
        let event = Event::new(source, "1", "dataset.updated", dataset, "run", data);
        let answer = call(Arc::new(context), event).await;
        (store, answer)
    }

    #[tokio::test]
    async fn masked_rows_are_a_dataset_of_their_own() {
        let (store, answer) = call_with(POLICY, "people", "/ci").await;
        let answer = answer.expect("no failure").expect("an event");
        assert_eq!(answer.short_kind(), Some("dataset.updated"));
        let data = answer.object();
        assert_eq!((&data["dataset"], &data["origin"]), (&json!("people-masked"), &json!("ci")));
        let digest = data["digest"].as_str().expect("a digest").parse().expect("a digest");
        assert_eq!(store.get(&digest, 1000).await.expect("stored"), "age\n30\n40\n");
    }

    #[tokio::test]
    async fn nothing_is_masked_twice() {
        for (dataset, source) in
            [("people-masked", "/baton/functions/mask"), ("people-masked", "/ci"), ("cars", "/ci")]
        {
            assert!(call_with(POLICY, dataset, source).await.1.expect("no failure").is_none(), "{dataset}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_masked_goes_nowhere() {
        for policy in [
            "",
            "[mask.columns]\nmail = \"remove\"",
            "[mask]\ninto = \"../x\"\n[mask.columns]\nage = \"remove\"",
        ] {
            let (_, answer) = call_with(policy, "people", "/ci").await;
            assert!(matches!(answer, Err(Failure::Never(_))), "{policy}: {answer:?}");
        }
    }
}
