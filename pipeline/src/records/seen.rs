//! What an event says of its run, and which part of the run it is of.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The model of a run's shared part, and the bundle of a part that is no attempt's.
pub(super) const NONE: &str = "";

/// A part of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) model: String,
    /// Its digest.
    pub(super) bundle: String,
}

impl Part {
    pub(super) fn new(model: &str, bundle: &str) -> Self {
        Self { model: model.to_owned(), bundle: bundle.to_owned() }
    }

    pub(super) fn shared() -> Self {
        Self::new(NONE, NONE)
    }

    pub(super) fn of_model(&self) -> Self {
        Self::new(&self.model, NONE)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.model == NONE
    }

    pub(super) fn is_attempt(&self) -> bool {
        self.bundle != NONE
    }

    /// Those above it, the shared part first, and it.
    pub(super) fn line(&self) -> Vec<Self> {
        let mut line = vec![Self::shared(), self.of_model(), self.clone()];
        line.dedup();
        line
    }

    /// Is the event of it, or of a part above it?
    pub(super) fn is_below(&self, event: &Seen) -> bool {
        let (model, bundle) = (event.model(), event.bundle());
        model == NONE || model == self.model && (bundle == NONE || bundle == self.bundle)
    }
}

/// What an event tells of its run. The order is that of a run's way; the clocks of those who tell need not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Kind {
    #[serde(rename = "dataset.updated")]
    Updated,
    #[serde(rename = "dataset.rejected")]
    Rejected,
    #[serde(rename = "dataset.validated")]
    Validated,
    #[serde(rename = "artifact.pushed")]
    Pushed,
    #[serde(rename = "training.started")]
    Started,
    #[serde(rename = "training.failed")]
    Failed,
    #[serde(rename = "training.finished")]
    Finished,
    #[serde(rename = "model.evaluated")]
    Evaluated,
    #[serde(rename = "model.rejected")]
    Refused,
    #[serde(rename = "model.deployed")]
    Deployed,
    #[serde(rename = "model.rolledback")]
    RolledBack,
}

impl Kind {
    pub(super) fn of(kind: &str) -> Option<Self> {
        let short = kind.strip_prefix(crate::event::TYPE_PREFIX)?.strip_suffix(".v1")?;
        serde_json::from_value(short.into()).ok()
    }

    pub(super) fn rank(self) -> u8 {
        match self {
            Kind::Updated => 0,
            Kind::Rejected | Kind::Validated | Kind::Pushed => 1,
            Kind::Started => 2,
            Kind::Failed => 3,
            // After a failure too: a training that was given up may answer after all.
            Kind::Finished => 4,
            Kind::Evaluated => 5,
            Kind::Refused => 6,
            // What was deployed stays so, though it is compared once more later and refused as what is served already.
            Kind::Deployed => 7,
            Kind::RolledBack => 8,
        }
    }

    /// The state of a run whose furthest event this is.
    pub(super) fn state(self) -> &'static str {
        match self {
            Kind::Updated => "updated",
            Kind::Rejected => "rejected",
            Kind::Validated => "validated",
            Kind::Pushed => "pushed",
            Kind::Started => "training",
            Kind::Failed => "failed",
            Kind::Finished => "trained",
            Kind::Evaluated => "evaluated",
            Kind::Refused => "refused",
            Kind::Deployed => "deployed",
            Kind::RolledBack => "rolledback",
        }
    }

    /// Nothing is to come after it.
    pub(super) fn is_end(self) -> bool {
        matches!(self, Kind::Rejected | Kind::Failed | Kind::Refused | Kind::Deployed | Kind::RolledBack)
    }

    pub(super) fn is_of_dataset(self) -> bool {
        matches!(self, Kind::Updated | Kind::Rejected | Kind::Validated)
    }

    /// The stage that spent the event's cost.
    pub(super) fn stage(self) -> Option<&'static str> {
        match self {
            Kind::Rejected | Kind::Validated => Some("validate"),
            Kind::Failed | Kind::Finished => Some("train"),
            Kind::Evaluated => Some("evaluate"),
            Kind::Refused | Kind::Deployed | Kind::RolledBack => Some("deploy"),
            Kind::Updated | Kind::Pushed | Kind::Started => None,
        }
    }
}

/// What the view needs of an event.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    /// Microseconds since 1970.
    pub(super) time: Option<i64>,
    pub(super) source: String,
    pub(super) id: String,
    pub(super) subject: Option<String>,
    pub(super) data: Map<String, Value>,
}

impl Seen {
    /// `None` for an event that is not of the pipeline, or that is stored in a form that cannot be read back.
    pub(super) fn read(body: &str) -> Option<Self> {
        let Ok(Value::Object(mut body)) = serde_json::from_str(body) else { return None };
        let mut text = |name: &str| match body.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let kind = Kind::of(&text("type")?)?;
        let time = text("time").as_deref().and_then(time);
        let (source, id, subject) = (text("source")?, text("id")?, text("subject"));
        let data = match body.remove("data") {
            Some(Value::Object(data)) => data,
            _ => Map::new(),
        };
        Some(Self { kind, time, source, id, subject, data })
    }

    /// The model whose part it belongs to.
    pub(super) fn model(&self) -> &str {
        if self.kind.is_of_dataset() {
            return NONE;
        }
        let named = self.text("model").filter(|model| !model.is_empty());
        named.or(self.subject.as_deref()).unwrap_or(NONE)
    }

    /// The bundle of the attempt that it belongs to.
    pub(super) fn bundle(&self) -> &str {
        if self.model() == NONE { NONE } else { bundle(self.kind, &self.data) }
    }

    pub(super) fn part(&self) -> Part {
        Part::new(self.model(), self.bundle())
    }

    /// Is it of a model, but of none of the attempts at it?
    pub(super) fn is_of_model_alone(&self) -> bool {
        self.model() != NONE && self.bundle() == NONE
    }

    /// For a table whose times must not be missing.
    pub(super) fn at(&self) -> i64 {
        self.time.unwrap_or(i64::MIN)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.data.get(name)?.as_str()
    }

    /// Says which of two events counts; no two events have the same.
    pub(super) fn order(&self) -> (u8, bool, Option<i64>, Kind, &str, &str) {
        (self.kind.rank(), self.has_measured(), self.time, self.kind, &self.source, &self.id)
    }

    /// A candidate that is being served already is refused without a look at it; that says nothing against what was measured before.
    pub(super) fn has_measured(&self) -> bool {
        self.kind == Kind::Evaluated
            && self
                .data
                .get("candidate")
                .and_then(Value::as_object)
                .is_some_and(|measured| !measured.is_empty())
    }
}

/// The bundle that an event names, if its type is of an attempt: what has begun or failed has made none.
pub(super) fn bundle(kind: Kind, data: &Map<String, Value>) -> &str {
    let named = || data.get("bundle")?.get("digest")?.as_str();
    let is_of_attempt = !kind.is_of_dataset() && !matches!(kind, Kind::Started | Kind::Failed);
    named().filter(|_| is_of_attempt).unwrap_or(NONE)
}

/// The same of an event as JSON.
pub(super) fn bundle_of(event: &Value) -> &str {
    let kind = event["type"].as_str().and_then(Kind::of);
    kind.zip(event["data"].as_object()).map_or(NONE, |(kind, data)| bundle(kind, data))
}

/// RFC 3339 to microseconds since 1970.
pub(super) fn time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}
