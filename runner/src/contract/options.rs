//! What a contract or the manifest's `[bind]` table says about single fields.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, ExtensionDescriptor, FieldDescriptor, Value};

use crate::bundle::FieldBinding;

/// Answers for every field of a contract what is said about it.
pub(super) struct Options<'a> {
    tensor: Option<ExtensionDescriptor>,
    column: Option<ExtensionDescriptor>,
    ignore: Option<ExtensionDescriptor>,
    label: Option<ExtensionDescriptor>,
    manifest: &'a BTreeMap<String, FieldBinding>,
}

impl<'a> Options<'a> {
    pub(super) fn new(pool: &DescriptorPool, manifest: &'a BTreeMap<String, FieldBinding>) -> Self {
        let extension = |name: &str| pool.get_extension_by_name(&format!("baton.{name}"));
        Self {
            tensor: extension("tensor"),
            column: extension("column"),
            ignore: extension("ignore"),
            label: extension("label"),
            manifest,
        }
    }

    /// What is said about a field; the manifest wins over the contract.
    pub(super) fn of(&self, field: &FieldDescriptor) -> FieldBinding {
        let from_manifest = self.manifest.get(field.full_name()).cloned().unwrap_or_default();
        if self.tensor.is_none() {
            return from_manifest;
        }
        let options = field.options();
        let get = |extension: &Option<ExtensionDescriptor>| {
            let extension = extension.as_ref().filter(|extension| options.has_extension(extension))?;
            Some(options.get_extension(extension).into_owned())
        };
        let text = |value: Value| value.as_str().map(str::to_owned);
        let labels = get(&self.label).and_then(|value| value.as_list().map(<[Value]>::to_vec));
        let own = FieldBinding {
            tensor: get(&self.tensor).and_then(text),
            column: get(&self.column).and_then(|value| value.as_u32()),
            ignore: get(&self.ignore).and_then(|value| value.as_bool()).unwrap_or(false),
            label: labels.unwrap_or_default().into_iter().filter_map(text).collect(),
        };
        FieldBinding {
            tensor: from_manifest.tensor.or(own.tensor),
            column: from_manifest.column.or(own.column),
            ignore: from_manifest.ignore || own.ignore,
            label: if from_manifest.label.is_empty() { own.label } else { from_manifest.label },
        }
    }

    /// Names in the manifest's table that are no field of the contract.
    pub(super) fn unknown(&self, pool: &DescriptorPool) -> Vec<String> {
        let known = |name: &str| {
            name.rsplit_once('.').is_some_and(|(message, field)| {
                pool.get_message_by_name(message)
                    .is_some_and(|message| message.get_field_by_name(field).is_some())
            })
        };
        self.manifest.keys().filter(|name| !known(name)).cloned().collect()
    }
}
