//! Triggers: which events go where.

use std::collections::BTreeMap;

use super::delivery::{self, Partial};
use super::reader::{Fields, Value};
use super::set::{Set, foreign};
use super::{Destination, Filter, Trigger, scalar};

/// Filters inside filters.
const MAX_NESTING: usize = 8;

/// Reads a trigger; its delivery is completed by the broker's.
pub(super) fn read<'a>(root: &Value<'a>, broker: &Partial, set: &Set<'a>) -> Option<Trigger> {
    root.fields(|fields| {
        let metadata = set.metadata(fields, scalar::label);
        if let Some(metadata) = &metadata {
            foreign(&metadata.annotations, &[]);
        }
        let spec = fields.required("spec").and_then(|spec| {
            spec.fields(|fields| {
                named_broker(fields, set);
                fields.refused("brokerRef", "a set has one Broker; name it in broker");
                let filter = filter(fields);
                let subscriber = fields.required("subscriber").and_then(|value| subscriber(&value, set));
                let own = fields.get("delivery").map(|value| Partial::read(&value, set));
                let own = own.map_or(Some(None), |own| own.map(Some));
                Some((filter?, subscriber?, Partial::complete(own?.as_ref(), broker, root)))
            })
        });
        let (filter, subscriber, delivery) = spec?;
        if delivery.dead_letter == Some(Destination::Broker) {
            root.refuse("its dead letters go back to the Broker, which would deliver them again and again");
        }
        Some(Trigger { name: metadata?.name, filter, subscriber, delivery })
    })
}

fn named_broker(fields: &Fields<'_, '_>, set: &Set<'_>) {
    if let Some(value) = fields.required("broker")
        && let Some(name) = value.word()
        && name != set.broker
    {
        value.refuse(format!("{name:?} is no Broker of the set, which is {:?}", set.broker));
    }
}

fn subscriber<'a>(value: &Value<'a>, set: &Set<'a>) -> Option<Destination> {
    let destination = delivery::destination(value, set)?;
    if destination == Destination::Broker {
        value.refuse("is the Broker itself, which would deliver its events again and again");
        return None;
    }
    Some(destination)
}

/// `filter` or `filters`; without either, every event.
fn filter(fields: &Fields<'_, '_>) -> Option<Filter> {
    let old = fields.get("filter");
    let new = fields.get("filters");
    match (old, new) {
        (Some(_), Some(new)) => {
            new.refuse("stands beside filter, which a cluster would then ignore: keep one of them");
            None
        }
        (None, None) => Some(Filter::All(Vec::new())),
        (Some(old), None) => old.fields(|fields| match fields.get("attributes") {
            Some(value) => attributes(&value, Empty::AnyValue).map(Filter::Exact),
            None => Some(Filter::All(Vec::new())),
        }),
        (None, Some(new)) => filters(&new, 0).map(Filter::All),
    }
}

fn filters(value: &Value<'_>, nesting: usize) -> Option<Vec<Filter>> {
    let items = value.list()?;
    let read: Vec<Option<Filter>> = items.iter().map(|item| dialect(item, nesting)).collect();
    read.into_iter().collect()
}

/// One filter: a mapping with exactly one dialect.
fn dialect(value: &Value<'_>, nesting: usize) -> Option<Filter> {
    if nesting > MAX_NESTING {
        value.refuse(format!("is nested more than {MAX_NESTING} deep"));
        return None;
    }
    value.fields(|fields| {
        for key in ["sql", "cesql"] {
            fields.refused(key, "CESQL is not; exact, prefix, suffix, all, any and not are");
        }
        let nested = |value: &Value<'_>| {
            let filters = filters(value, nesting + 1)?;
            if filters.is_empty() {
                value.refuse("is empty: at least one filter is wanted");
            }
            Some(filters)
        };
        let read = [
            fields.get("exact").map(|value| attributes(&value, Empty::Refused).map(Filter::Exact)),
            fields.get("prefix").map(|value| attributes(&value, Empty::Refused).map(Filter::Prefix)),
            fields.get("suffix").map(|value| attributes(&value, Empty::Refused).map(Filter::Suffix)),
            fields.get("all").map(|value| nested(&value).map(Filter::All)),
            fields.get("any").map(|value| nested(&value).map(Filter::Any)),
            fields
                .get("not")
                .map(|value| dialect(&value, nesting + 1).map(|inner| Filter::Not(Box::new(inner)))),
        ];
        let mut found: Vec<Option<Filter>> = read.into_iter().flatten().collect();
        if found.len() != 1 {
            fields.whole().refuse("has not exactly one of exact, prefix, suffix, all, any and not");
            return None;
        }
        found.remove(0)
    })
}

/// What an empty value of an attribute means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    /// `filter.attributes`: the attribute has any value.
    AnyValue,
    Refused,
}

fn attributes(value: &Value<'_>, empty: Empty) -> Option<BTreeMap<String, String>> {
    let mut result = BTreeMap::new();
    let entries = value.free()?;
    if entries.is_empty() && empty == Empty::Refused {
        value.refuse("is empty: at least one attribute is wanted");
    }
    for (name, value) in entries {
        let name = scalar::attribute(name).map_err(|reason| value.refuse(reason)).ok();
        let text = if empty == Empty::AnyValue { value.text() } else { value.word() };
        if let (Some(name), Some(text)) = (name, text) {
            result.insert(name, text.to_owned());
        }
    }
    Some(result)
}
