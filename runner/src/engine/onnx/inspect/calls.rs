//! Who calls whom among a model's own functions, and what that makes of the model once ONNX Runtime has inlined them.
//!
//! Counts are of calls as written, never by following them one by one: a kilobyte of functions can stand for 2^60
//! nodes. Calls in functions that nobody calls are checked for cycles as well, since ONNX Runtime looks at those too.

use std::collections::{BTreeMap, HashMap};

use super::super::wire::{Message, WireError};
use super::{InspectError, InspectLimits, quoted, too_many};

/// What identifies an operator or a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct OperatorId<'a> {
    pub(super) domain: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) overload: &'a [u8],
}

impl<'a> OperatorId<'a> {
    /// Both spellings of ONNX's own domain are one.
    fn normalised(self) -> Self {
        if self.domain == b"ai.onnx" { Self { domain: b"", ..self } } else { self }
    }

    fn of_function(function: Message<'a>) -> Result<Self, WireError> {
        let mut id = Self { domain: b"", name: b"", overload: b"" };
        for field in function.fields() {
            let field = field?;
            match field.number {
                1 => id.name = field.bytes()?,
                10 => id.domain = field.bytes()?,
                13 => id.overload = field.bytes()?,
                _ => {}
            }
        }
        Ok(id.normalised())
    }
}

/// A function, or everything that is in none.
#[derive(Debug, Default)]
struct Body {
    label: String,
    nodes: u64,
    /// The deepest subgraph in it.
    depth: usize,
    calls: BTreeMap<usize, Calls>,
}

/// All calls of one function from one body.
#[derive(Debug, Default)]
struct Calls {
    times: u64,
    /// The deepest subgraph that holds one of them.
    depth: usize,
}

/// Names a body of the call graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodyIndex(usize);

#[derive(Debug)]
pub(super) struct CallGraph<'a> {
    index: HashMap<OperatorId<'a>, usize>,
    /// The first is the model's graph (with its training graphs).
    bodies: Vec<Body>,
}

/// What a body amounts to with all its calls inlined.
#[derive(Debug, Clone, Copy, Default)]
struct Inlined {
    nodes: u64,
    depth: usize,
    chain: usize,
}

impl<'a> CallGraph<'a> {
    pub(super) const MAIN: BodyIndex = BodyIndex(0);

    pub(super) fn of(functions: &[Message<'a>]) -> Result<Self, WireError> {
        let mut graph = Self { index: HashMap::new(), bodies: vec![Body::default()] };
        for function in functions {
            let id = OperatorId::of_function(*function)?;
            // Of two functions with one name ONNX Runtime takes one; here they share a body, so that either is covered.
            graph.index.entry(id).or_insert_with(|| {
                graph.bodies.push(Body { label: quoted(id.name), ..Body::default() });
                graph.bodies.len() - 1
            });
        }
        Ok(graph)
    }

    /// The body that a function's nodes belong to.
    pub(super) fn body(&self, function: Message<'a>) -> Result<BodyIndex, WireError> {
        let id = OperatorId::of_function(function)?;
        Ok(self.index.get(&id).map_or(Self::MAIN, |index| BodyIndex(*index)))
    }

    pub(super) fn defines(&self, domain: &[u8], name: &[u8]) -> bool {
        self.index.keys().any(|id| id.domain == domain && id.name == name)
    }

    /// Records a node of `body`, `depth` subgraphs deep in it.
    pub(super) fn add_node(&mut self, body: BodyIndex, operator: OperatorId<'a>, depth: usize) {
        let callee = self.index.get(&operator.normalised()).copied();
        let Some(body) = self.bodies.get_mut(body.0) else { return };
        body.nodes = body.nodes.saturating_add(1);
        body.depth = body.depth.max(depth);
        if let Some(callee) = callee {
            let calls = body.calls.entry(callee).or_default();
            calls.times = calls.times.saturating_add(1);
            calls.depth = calls.depth.max(depth);
        }
    }

    /// Checks the whole, once every node is recorded: one walk in post-order over an explicit stack.
    pub(super) fn check(&self, limits: &InspectLimits) -> Result<(), InspectError> {
        let mut done: Vec<Option<Inlined>> = vec![None; self.bodies.len()];
        let mut open = vec![false; self.bodies.len()];
        for start in 0..self.bodies.len() {
            let mut stack = vec![(start, None)];
            while let Some((at, calls)) = stack.pop() {
                let Some(body) = self.bodies.get(at) else { continue };
                let mut calls = match calls {
                    Some(calls) => calls,
                    None if done.get(at).is_some_and(Option::is_some) => continue,
                    None => body.calls.keys(),
                };
                mark(&mut open, at, true);
                if let Some(callee) = calls.next() {
                    if open.get(*callee).copied().unwrap_or(false) {
                        let function =
                            self.bodies.get(*callee).map_or_else(String::new, |body| body.label.clone());
                        return Err(InspectError::FunctionCycle { function });
                    }
                    stack.push((at, Some(calls)));
                    stack.push((*callee, None));
                    continue;
                }
                mark(&mut open, at, false);
                let inlined = body.inlined(&done);
                if inlined.chain > limits.call_depth {
                    return Err(too_many("functions that call one another in a chain", limits.call_depth));
                }
                if let Some(slot) = done.get_mut(at) {
                    *slot = Some(inlined);
                }
            }
        }
        let (main, inlined) = match (self.bodies.first(), done.first()) {
            (Some(main), Some(Some(inlined))) => (main, *inlined),
            _ => return Ok(()),
        };
        if inlined.depth > limits.subgraph_depth {
            return Err(InspectError::TooDeep { limit: limits.subgraph_depth });
        }
        if inlined.nodes.saturating_sub(main.nodes) > limits.inlined_nodes as u64 {
            return Err(too_many("nodes once its functions are inlined", limits.inlined_nodes));
        }
        Ok(())
    }
}

impl Body {
    fn inlined(&self, done: &[Option<Inlined>]) -> Inlined {
        let mut sum = Inlined { nodes: self.nodes, depth: self.depth, chain: 0 };
        for (callee, calls) in &self.calls {
            let callee = done.get(*callee).copied().flatten().unwrap_or_default();
            sum.nodes = sum.nodes.saturating_add(callee.nodes.saturating_mul(calls.times));
            sum.depth = sum.depth.max(callee.depth.saturating_add(calls.depth));
            sum.chain = sum.chain.max(callee.chain.saturating_add(1));
        }
        sum
    }
}

fn mark(open: &mut [bool], at: usize, value: bool) {
    if let Some(slot) = open.get_mut(at) {
        *slot = value;
    }
}
