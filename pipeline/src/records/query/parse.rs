//! From the text of a query to a checked expression, by recursive descent.
//!
//! ```text
//! or        = and { "or" and }
//! and       = not { "and" not }
//! not       = "not" not | "(" or ")" | test
//! test      = field ( operator literal | ["not"] "in" "(" literal { "," literal } ")" | "is" ["not"] "null" | "exists" )
//! operator  = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" | "~" | "!~"
//! field     = word { "." ( word | text ) }
//! literal   = number | text | "true" | "false" | time span
//! ```

use std::cmp::Ordering;

use super::field::{Field, Names, Values};
use super::judge::{Condition, Literal, Operator, Sought};
use super::lex::{QueryError, Token, fields, tokens};
use super::select::Wanted;

/// Brackets and negations within each other.
const MAX_DEPTH: usize = 50;
/// Fields to sort by: each is kept for each run that may be answered.
const MAX_SORTED: usize = 16;

/// A checked expression; the empty one matches every run.
#[derive(Debug, Clone)]
pub struct Expression {
    pub(super) condition: Option<Condition>,
    pub(super) wanted: Wanted,
}

impl Expression {
    /// `now` is what time spans (`-7d`) count from.
    ///
    /// # Errors
    /// [`QueryError`]: not this language, no such field, or values that cannot be compared with it.
    pub fn parse(text: &str, names: &Names<'_>, now: jiff::Timestamp) -> Result<Self, QueryError> {
        let mut parser = Parser { text, tokens: tokens(text)?, at: 0, names, now, wanted: Wanted::default() };
        if matches!(parser.peek(), Token::End) {
            return Ok(Self { condition: None, wanted: parser.wanted });
        }
        let condition = parser.any(0)?;
        match parser.peek() {
            Token::End => Ok(Self { condition: Some(condition), wanted: parser.wanted }),
            other => Err(parser.error(format!("and or or is expected here, not {other}"))),
        }
    }
}

/// The way that a field is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Direction {
    pub(super) fn of(self, order: Ordering) -> Ordering {
        match self {
            Direction::Up => order,
            Direction::Down => order.reverse(),
        }
    }
}

/// Fields to sort by, the most important first.
#[derive(Debug, Clone)]
pub struct Sort {
    pub(super) fields: Vec<(Field, Direction)>,
    pub(super) wanted: Wanted,
}

impl Sort {
    /// `-accuracy,started`; `None` for the empty text.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn parse(text: &str, names: &Names<'_>) -> Result<Option<Self>, QueryError> {
        let mut sort = Self { fields: Vec::new(), wanted: Wanted::default() };
        for (place, part) in fields(text)? {
            let (direction, name) = match part.strip_prefix('-') {
                Some(name) => (Direction::Down, name),
                None => (Direction::Up, &*part),
            };
            let at = place + usize::from(direction == Direction::Down);
            let error = |reason| QueryError::new(text, at, reason);
            if sort.fields.len() == MAX_SORTED {
                return Err(error(format!("at most {MAX_SORTED} fields")));
            }
            let field = field(name, names, &mut sort.wanted).map_err(error)?;
            match field.values {
                Values::Group => {
                    return Err(error(format!("{name} is a group of fields and has no order")));
                }
                Values::List => return Err(error(format!("{name} is a list and has no order"))),
                Values::Plain | Values::Time | Values::Flag => sort.fields.push((field, direction)),
            }
        }
        Ok((!sort.fields.is_empty()).then_some(sort))
    }
}

/// The field with this name, which stands alone; or why there is none.
pub(super) fn field(name: &str, names: &Names<'_>, wanted: &mut Wanted) -> Result<Field, String> {
    let mut words = tokens(name).map_err(|error| error.reason)?.into_iter().map(|(_, token)| token);
    let mut parts = Vec::new();
    loop {
        match (words.next(), parts.is_empty()) {
            (Some(Token::Word(part)), _) | (Some(Token::Text(part)), false) => parts.push(part),
            _ => return Err("a field is expected here".to_owned()),
        }
        match words.next() {
            Some(Token::Sign(".")) => {}
            Some(Token::End) => break,
            _ => return Err(format!("{name} is no field; several are separated by commas")),
        }
    }
    names.field(&parts, wanted)
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
    names: &'a Names<'a>,
    now: jiff::Timestamp,
    wanted: Wanted,
}

impl Parser<'_> {
    fn any(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let mut parts = vec![self.all(depth)?];
        while self.word("or") {
            parts.push(self.all(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::Any(parts) })
    }

    fn all(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let mut parts = vec![self.not(depth)?];
        while self.word("and") {
            parts.push(self.not(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::All(parts) })
    }

    fn not(&mut self, depth: usize) -> Result<Condition, QueryError> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} brackets within each other")));
        }
        if self.word("not") {
            return Ok(Condition::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.sign("(") {
            let inner = self.any(depth + 1)?;
            return if self.sign(")") {
                Ok(inner)
            } else {
                Err(self.error(format!(") is expected here, not {}", self.peek())))
            };
        }
        self.test()
    }

    fn test(&mut self) -> Result<Condition, QueryError> {
        let (place, name, field) = self.field()?;
        if self.word("exists") {
            return Ok(Condition::Not(Box::new(Condition::Missing(field))));
        }
        if self.word("is") {
            let not = self.word("not");
            if !self.word("null") {
                return Err(self.error(format!("null is expected here, not {}", self.peek())));
            }
            let missing = Condition::Missing(field);
            return Ok(if not { Condition::Not(Box::new(missing)) } else { missing });
        }
        let at = self.at;
        let sign = match self.peek() {
            Token::Sign(sign) => *sign,
            _ => "",
        };
        if sign == "~" || sign == "!~" {
            self.at += 1;
            let contains = Condition::Contains(field, self.sought()?);
            return Ok(if sign == "~" { contains } else { Condition::Not(Box::new(contains)) });
        }
        if field.values == Values::Group {
            let reason = format!("{name} is a group; name one of its fields: {name}.NAME");
            return Err(QueryError::new(self.text, place, reason));
        }
        if field.values == Values::List {
            let reason = format!("{name} is a list; {name} ~ \"...\" looks into it");
            return Err(QueryError::new(self.text, place, reason));
        }
        let not = self.word("not");
        if self.word("in") {
            let list = Condition::In(field.clone(), self.list(&name, &field)?);
            return Ok(if not { Condition::Not(Box::new(list)) } else { list });
        }
        let operator = match sign {
            "=" | "==" => Operator::Equal,
            "!=" | "<>" => Operator::NotEqual,
            "<" => Operator::Less,
            "<=" => Operator::AtMost,
            ">" => Operator::Greater,
            ">=" => Operator::AtLeast,
            _ => {
                self.at = at;
                let reason = format!(
                    "an operator is expected after {name} (=, !=, <, <=, >, >=, ~, in, is null, exists)"
                );
                return Err(self.error(reason));
            }
        };
        self.at += 1;
        let place = self.place();
        let literal = self.literal(&name, &field)?;
        if matches!(literal, Literal::Bool(_)) && !matches!(operator, Operator::Equal | Operator::NotEqual) {
            return Err(QueryError::new(
                self.text,
                place,
                "true and false have no order; compare with = or !=",
            ));
        }
        Ok(Condition::Compare(field, operator, literal))
    }

    fn field(&mut self) -> Result<(usize, String, Field), QueryError> {
        let place = self.place();
        let mut parts = match self.peek() {
            Token::Word(word) => vec![word.clone()],
            Token::Text(text) => {
                let reason = format!("a field is expected here, without quotes, not the text {text:?}");
                return Err(self.error(reason));
            }
            other => return Err(self.error(format!("a field is expected here, not {other}"))),
        };
        self.at += 1;
        while self.sign(".") {
            match self.peek() {
                Token::Word(part) | Token::Text(part) => parts.push(part.clone()),
                other => return Err(self.error(format!("a name is expected after the dot, not {other}"))),
            }
            self.at += 1;
        }
        let field = self.names.field(&parts, &mut self.wanted);
        let field = field.map_err(|reason| QueryError::new(self.text, place, reason))?;
        Ok((place, parts.join("."), field))
    }

    fn list(&mut self, name: &str, field: &Field) -> Result<Vec<Literal>, QueryError> {
        if !self.sign("(") {
            return Err(self.error(format!("( is expected after in, not {}", self.peek())));
        }
        let mut literals = Vec::new();
        loop {
            literals.push(self.literal(name, field)?);
            if self.sign(")") {
                return Ok(literals);
            }
            if !self.sign(",") {
                return Err(self.error(format!(", or ) is expected here, not {}", self.peek())));
            }
        }
    }

    fn sought(&mut self) -> Result<Sought, QueryError> {
        let sought = match self.peek() {
            Token::Text(text) => Sought::new(text, None),
            Token::Number(number) => Sought::new(&self.written(), Some(*number)),
            other => return Err(self.error(format!("a text is expected after ~, in quotes, not {other}"))),
        };
        self.at += 1;
        Ok(sought)
    }

    /// What is next, as it was written: in a text `3.10` is another number than `3.1`.
    fn written(&self) -> String {
        let end = self.tokens.get(self.at + 1).map_or(usize::MAX, |(place, _)| *place);
        let written: String = self.text.chars().take(end).skip(self.place()).collect();
        written.trim_end().to_owned()
    }

    fn literal(&mut self, name: &str, field: &Field) -> Result<Literal, QueryError> {
        let is_time = field.values == Values::Time;
        let literal = match self.peek() {
            Token::Number(_) | Token::Word(_) if is_time => None,
            Token::Number(_) | Token::Text(_) | Token::Ago(_) if field.values == Values::Flag => {
                return Err(
                    self.error(format!("{name} is true or false, without quotes; not {}", self.peek()))
                );
            }
            Token::Number(number) => Some(Literal::Number(*number)),
            Token::Text(text) if is_time => time(text),
            Token::Text(text) => Some(Literal::Text(text.clone())),
            Token::Ago(seconds) if is_time => ago(self.now, *seconds),
            Token::Ago(_) => {
                let reason = format!("{name} is no time; started, finished and since are");
                return Err(self.error(reason));
            }
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Some(Literal::Bool(true)),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Some(Literal::Bool(false)),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => {
                return Err(self.error(format!("write {name} is null, or {name} exists")));
            }
            Token::Word(word) => {
                return Err(self.error(format!("a text is written in quotes: \"{word}\"")));
            }
            Token::Sign(_) | Token::End => {
                return Err(self.error(format!("a value is expected here, not {}", self.peek())));
            }
        };
        let Some(literal) = literal else {
            let reason = format!(
                "{name} is a time: \"2026-11-20\", \"2026-11-20T08:30:00Z\", or -7d for a week ago; not {}",
                self.peek()
            );
            return Err(self.error(reason));
        };
        self.at += 1;
        Ok(literal)
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(_, token)| token)
    }

    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(place, _)| *place)
    }

    /// Takes this keyword if it is next.
    fn word(&mut self, keyword: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.at += usize::from(is_next);
        is_next
    }

    fn sign(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Sign(next) if *next == sign);
        self.at += usize::from(is_next);
        is_next
    }

    fn error(&self, reason: String) -> QueryError {
        QueryError::new(self.text, self.place(), reason)
    }
}

/// A time as conditions have it, alone: `2026-11-20` (its first moment), `2026-11-20T08:30:00Z`, `-7d`.
///
/// # Errors
/// Why it is none.
pub fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    let micros = match tokens(text).map_err(|error| error.reason)?.as_slice() {
        [(_, Token::Text(time)), (_, Token::End)] => self::time(time),
        [(_, Token::Ago(seconds)), (_, Token::End)] => ago(jiff::Timestamp::now(), *seconds),
        _ => None,
    };
    let moment = match micros {
        Some(Literal::Time(micros, _)) => {
            let outmost = if micros < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
            Some(jiff::Timestamp::from_microsecond(micros).unwrap_or(outmost))
        }
        _ => None,
    };
    moment.ok_or_else(|| "a time is 2026-11-20, 2026-11-20T08:30:00Z, or -7d for a week ago".to_owned())
}

/// A day is from its first to its last microsecond, UTC; a time without a zone is UTC.
fn time(text: &str) -> Option<Literal> {
    // The last day of the calendar is beyond the last moment of jiff, but every moment can be compared with it.
    let micros = |time: jiff::civil::DateTime| {
        i64::try_from(time.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0)).as_micros()).ok()
    };
    if text.len() == 10 {
        let day: jiff::civil::Date = text.parse().ok()?;
        let last = day.at(23, 59, 59, 999_999_000);
        return Some(Literal::Time(micros(day.at(0, 0, 0, 0))?, micros(last)?));
    }
    let moment = match text.parse::<jiff::Timestamp>() {
        Ok(time) => time.as_microsecond(),
        Err(_) => micros(text.parse().ok()?)?,
    };
    Some(Literal::Time(moment, moment))
}

fn ago(now: jiff::Timestamp, seconds: f64) -> Option<Literal> {
    // `as` saturates; so long ago is before everything.
    let moment = now.as_microsecond().saturating_sub((seconds * 1e6) as i64);
    Some(Literal::Time(moment, moment))
}
