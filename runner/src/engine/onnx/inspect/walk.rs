//! Visits every node and every tensor of a model: graph, subgraphs, functions, default attributes, training graphs.
//!
//! The signature is not read here. Recursion goes graph -> node -> attribute -> graph and is bounded by the limit on
//! subgraphs, which is itself held below what protobuf's own parsers accept.

use super::super::wire::{Message, WireError};
use super::calls::{BodyIndex, CallGraph, OperatorId};
use super::tensor::{Place, check_sparse, check_tensor};
use super::{InspectError, InspectLimits, ModelParts, too_many};

/// Protobuf's parsers give up at 100 messages in one another, three of which make a level.
const DEEPEST: usize = 33;

/// Walks the whole model. Returns what is known of its functions.
pub(super) fn check<'a>(
    model: &ModelParts<'a>,
    limits: &InspectLimits,
) -> Result<CallGraph<'a>, InspectError> {
    let calls = CallGraph::of(&model.functions)?;
    let mut walk = Walk { limits, nodes: 0, tensors: 0, calls };
    walk.graph(model.graph, Scope { body: CallGraph::MAIN, depth: 0 })?;
    for training in &model.training {
        walk.training(*training)?;
    }
    for function in &model.functions {
        let body = walk.calls.body(*function)?;
        walk.function(*function, Scope { body, depth: 0 })?;
    }
    walk.calls.check(limits)?;
    Ok(walk.calls)
}

/// Where in the model the walk is.
#[derive(Clone, Copy)]
struct Scope {
    body: BodyIndex,
    /// Subgraphs around, within that body.
    depth: usize,
}

struct Walk<'a, 'l> {
    limits: &'l InspectLimits,
    nodes: usize,
    tensors: usize,
    calls: CallGraph<'a>,
}

impl<'a> Walk<'a, '_> {
    fn graph(&mut self, graph: Message<'a>, scope: Scope) -> Result<(), InspectError> {
        let limit = self.limits.subgraph_depth.min(DEEPEST);
        if scope.depth > limit {
            return Err(InspectError::TooDeep { limit });
        }
        for field in graph.fields() {
            let field = field?;
            match field.number {
                1 => self.node(field.message("node")?, scope)?,
                5 => self.tensor(field.message("initializer")?, Place::Initializer)?,
                15 => self.sparse(field.message("sparse initializer")?, Place::Initializer)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn training(&mut self, training: Message<'a>) -> Result<(), InspectError> {
        let (mut initialization, mut algorithm) = (None, None);
        for field in training.fields() {
            let field = field?;
            let graph = match field.number {
                1 => field.message_once("initialization graph", &mut initialization)?,
                2 => field.message_once("training graph", &mut algorithm)?,
                _ => continue,
            };
            self.graph(graph, Scope { body: CallGraph::MAIN, depth: 0 })?;
        }
        Ok(())
    }

    fn function(&mut self, function: Message<'a>, scope: Scope) -> Result<(), InspectError> {
        for field in function.fields() {
            let field = field?;
            match field.number {
                7 => self.node(field.message("node")?, scope)?,
                11 => self.attribute(field.message("attribute")?, b"", scope)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, node: Message<'a>, scope: Scope) -> Result<(), InspectError> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > self.limits.nodes {
            return Err(too_many("nodes", self.limits.nodes));
        }
        let header = Node::read(node)?;
        self.calls.add_node(scope.body, header.operator, scope.depth);
        for field in node.fields() {
            let field = field?;
            if field.number == 5 {
                self.attribute(field.message("attribute")?, header.called(), scope)?;
            }
        }
        Ok(())
    }

    fn attribute(
        &mut self,
        attribute: Message<'a>,
        node: &'a [u8],
        scope: Scope,
    ) -> Result<(), InspectError> {
        // The name is written first by every exporter, but protobuf does not promise it.
        let mut name: &[u8] = b"";
        for field in attribute.fields() {
            let field = field?;
            if field.number == 1 {
                name = field.bytes()?;
            }
        }
        let place = Place::Attribute { name, node };
        let inner = Scope { depth: scope.depth.saturating_add(1), ..scope };
        let (mut tensor, mut graph, mut sparse) = (None, None, None);
        for field in attribute.fields() {
            let field = field?;
            match field.number {
                5 => self.tensor(field.message_once("tensor", &mut tensor)?, place)?,
                6 => self.graph(field.message_once("subgraph", &mut graph)?, inner)?,
                10 => self.tensor(field.message("tensor")?, place)?,
                11 => self.graph(field.message("subgraph")?, inner)?,
                22 => self.sparse(field.message_once("sparse tensor", &mut sparse)?, place)?,
                23 => self.sparse(field.message("sparse tensor")?, place)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: Message<'a>, place: Place<'a>) -> Result<(), InspectError> {
        self.count_tensors(1)?;
        check_tensor(tensor, place, self.limits).map(drop)
    }

    fn sparse(&mut self, sparse: Message<'a>, place: Place<'a>) -> Result<(), InspectError> {
        self.count_tensors(2)?;
        check_sparse(sparse, place, self.limits)
    }

    fn count_tensors(&mut self, more: usize) -> Result<(), InspectError> {
        self.tensors = self.tensors.saturating_add(more);
        if self.tensors > self.limits.tensors {
            return Err(too_many("tensors", self.limits.tensors));
        }
        Ok(())
    }
}

/// What a node says about itself.
struct Node<'a> {
    name: &'a [u8],
    operator: OperatorId<'a>,
}

impl<'a> Node<'a> {
    fn read(node: Message<'a>) -> Result<Self, WireError> {
        let mut header = Self { name: b"", operator: OperatorId { domain: b"", name: b"", overload: b"" } };
        for field in node.fields() {
            let field = field?;
            match field.number {
                3 => header.name = field.bytes()?,
                4 => header.operator.name = field.bytes()?,
                7 => header.operator.domain = field.bytes()?,
                8 => header.operator.overload = field.bytes()?,
                _ => {}
            }
        }
        Ok(header)
    }

    /// Its name, or its operator's: names are optional.
    fn called(&self) -> &'a [u8] {
        if self.name.is_empty() { self.operator.name } else { self.name }
    }
}
