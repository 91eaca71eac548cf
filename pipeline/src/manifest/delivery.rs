//! Where events go, and how often it is tried.

use std::time::Duration;

use url::Url;

use super::reader::Value;
use super::set::{SERVING, Set};
use super::{Backoff, Delivery, Destination, scalar};

/// What the release of Knative Eventing sets for a broker that says nothing (`config-br-defaults`).
const RETRY: u32 = 10;
const DELAY: Duration = Duration::from_millis(200);
const MAX_RETRY: u32 = 100;
/// The longest pause between two attempts that still makes sense to wait for.
const MAX_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// The longest pause of the local engine (`engine::router`).
pub const LOCAL_PAUSE: Duration = Duration::from_secs(300);
/// As long as a call may take at all.
pub(super) const MAX_CALL: Duration = Duration::from_secs(600);

/// `delivery` of a broker or a trigger as it is written.
#[derive(Debug, Clone, Default)]
pub(super) struct Partial {
    retry: Option<u32>,
    backoff: Option<Backoff>,
    delay: Option<Duration>,
    timeout: Option<Duration>,
    dead_letter: Option<Destination>,
}

impl Partial {
    pub(super) fn read<'a>(value: &Value<'a>, set: &Set<'a>) -> Option<Self> {
        value.fields(|fields| {
            fields.refused("retryAfterMax", "the header Retry-After is not obeyed; remove it");
            fields.refused("format", "events are delivered in binary mode; remove it");
            Some(Self {
                retry: fields.get("retry").and_then(|value| value.whole(0, MAX_RETRY)),
                backoff: fields.get("backoffPolicy").and_then(|value| value.parsed(backoff)),
                delay: fields.get("backoffDelay").and_then(|value| value.parsed(scalar::iso_duration)),
                timeout: fields.get("timeout").and_then(|value| value.parsed(timeout)),
                dead_letter: fields.get("deadLetterSink").and_then(|value| destination(&value, set)),
            })
        })
    }

    /// The trigger's own, completed field by field by the broker's and then by Knative's defaults.
    pub(super) fn complete(own: Option<&Self>, broker: &Self, trigger: &Value<'_>) -> Delivery {
        let trigger_says = own.cloned().unwrap_or_default();
        let delivery = Delivery {
            retry: trigger_says.retry.or(broker.retry).unwrap_or(RETRY),
            backoff: trigger_says.backoff.or(broker.backoff).unwrap_or(Backoff::Exponential),
            delay: trigger_says.delay.or(broker.delay).unwrap_or(DELAY),
            timeout: trigger_says.timeout.or(broker.timeout),
            dead_letter: trigger_says.dead_letter.clone().or_else(|| broker.dead_letter.clone()),
        };
        let longest = match delivery.backoff {
            Backoff::Linear => delivery.delay.as_secs_f64() * f64::from(delivery.retry),
            Backoff::Exponential => delivery.delay.as_secs_f64() * 2f64.powf(f64::from(delivery.retry)),
        };
        if longest > MAX_PAUSE.as_secs_f64() {
            trigger.refuse(format!(
                "retry {} with backoffDelay {} s ends in a pause of more than a day: use a smaller retry, backoffDelay or \
                 backoffPolicy linear",
                delivery.retry,
                delivery.delay.as_secs_f64()
            ));
        }
        if longest > LOCAL_PAUSE.as_secs_f64() {
            trigger.report().note(format!(
                "{}: its pauses grow to {longest} s in a cluster; here none is longer than {} s",
                trigger.object(),
                LOCAL_PAUSE.as_secs()
            ));
        }
        if own.is_some() {
            let left_out = trigger_says.left_to(broker);
            if !left_out.is_empty() {
                trigger.report().note(format!(
                    "{}: its delivery leaves {} to the Broker's; some Broker classes (MTChannelBasedBroker) do not fill in \
                     what a Trigger leaves out: write it out",
                    trigger.object(),
                    left_out.join(", ")
                ));
            }
        }
        delivery
    }

    /// Fields that the broker says and this one does not.
    fn left_to(&self, broker: &Self) -> Vec<&'static str> {
        let pairs = [
            ("retry", self.retry.is_none() && broker.retry.is_some()),
            ("backoffPolicy", self.backoff.is_none() && broker.backoff.is_some()),
            ("backoffDelay", self.delay.is_none() && broker.delay.is_some()),
            ("timeout", self.timeout.is_none() && broker.timeout.is_some()),
            ("deadLetterSink", self.dead_letter.is_none() && broker.dead_letter.is_some()),
        ];
        pairs.into_iter().filter(|(_, left)| *left).map(|(name, _)| name).collect()
    }
}

fn backoff(text: &str) -> Result<Backoff, String> {
    match text {
        "linear" => Ok(Backoff::Linear),
        "exponential" => Ok(Backoff::Exponential),
        _ => Err(format!("{text:?} is neither linear nor exponential")),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = scalar::iso_duration(text)?;
    if timeout.is_zero() || timeout > MAX_CALL {
        return Err(format!("{text:?} is not more than PT0S and at most PT600S: longer work is a JobSink"));
    }
    Ok(timeout)
}

/// Reads a destination: `ref`, with or without a path in `uri`, or a whole `uri`.
pub(super) fn destination<'a>(value: &Value<'a>, set: &Set<'a>) -> Option<Destination> {
    value.fields(|fields| {
        let reference = fields.get("ref");
        let uri = fields.get("uri");
        for (key, what) in [("CACerts", "TLS inside the cluster"), ("audience", "OIDC inside the cluster")] {
            fields.refused(key, &format!("{what} belongs into an overlay that only the cluster reads"));
        }
        match (reference, uri) {
            (Some(reference), uri) => self::reference(&reference, uri.as_ref(), set),
            (None, Some(uri)) => uri.parsed(url).map(Destination::Url),
            (None, None) => {
                fields.whole().refuse("names nothing: ref or uri is wanted");
                None
            }
        }
    })
}

fn reference<'a>(value: &Value<'a>, uri: Option<&Value<'a>>, set: &Set<'a>) -> Option<Destination> {
    value.fields(|fields| {
        let [api_version, kind, name] =
            ["apiVersion", "kind", "name"].map(|key| fields.required(key).and_then(|value| value.word()));
        let namespace = fields.get("namespace");
        if let Some(namespace) = &namespace
            && let Some(text) = namespace.word()
            && !set.is_namespace(text)
        {
            namespace.refuse("is another namespace than the set's: nothing is delivered there");
        }
        let (api_version, kind, name) = (api_version?, kind?, name?);
        let path = uri.map(|uri| uri.parsed(path));
        let no_path = || {
            if let Some(uri) = uri {
                uri.refuse("is a path at something that has none: remove it");
            }
        };
        match (api_version, kind) {
            (SERVING, "Service") if set.services.contains(name) => {
                Some(Destination::Service { name: name.to_owned(), path: path.unwrap_or(Some("/".into()))? })
            }
            ("sinks.knative.dev/v1alpha1", "JobSink") if set.jobs.contains(name) => {
                no_path();
                Some(Destination::Job { name: name.to_owned() })
            }
            ("eventing.knative.dev/v1", "Broker") if set.broker == name => {
                no_path();
                Some(Destination::Broker)
            }
            (SERVING, "Service") | ("sinks.knative.dev/v1alpha1", "JobSink") | ("eventing.knative.dev/v1", "Broker") => {
                value.refuse(format!("names {kind} {name:?}, which is not in the set"));
                None
            }
            _ => {
                value.refuse(format!(
                    "names {api_version} {kind}: events go to a serving.knative.dev/v1 Service, a \
                     sinks.knative.dev/v1alpha1 JobSink, or from a PingSource to the eventing.knative.dev/v1 Broker"
                ));
                None
            }
        }
    })
}

/// A path below a service's address.
fn path(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no path: with ref, uri is one such as /dead");
    if !text.starts_with('/') || text.starts_with("//") {
        return Err(wrong());
    }
    let url = Url::parse("http://localhost").and_then(|base| base.join(text)).map_err(|_| wrong())?;
    if url.host_str() != Some("localhost") || url.fragment().is_some() {
        return Err(wrong());
    }
    Ok(match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    })
}

/// An address that can be reached from here.
fn url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}"))?;
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    if !matches!(url.scheme(), "http" | "https") || host.is_empty() {
        return Err(format!("{text:?} is no address: http or https and a host are wanted"));
    }
    if host.ends_with(".svc") || host.ends_with(".svc.cluster.local") {
        return Err(format!("{text:?} is known in a cluster only: use ref"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or a password in it, which would be shown to everybody: remove it".into());
    }
    if url.fragment().is_some() {
        return Err(format!("{text:?} has a fragment, which is never sent: remove it"));
    }
    Ok(url.into())
}
