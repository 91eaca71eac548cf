//! The words of a query, each with its place.

use std::fmt;

use super::number::Number;

/// Characters of a query, and of a list of fields.
const MAX_LENGTH: usize = 8192;

/// Why a query is none, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct QueryError {
    /// The character at which it went wrong, counted from 1.
    pub column: usize,
    pub reason: String,
    query: String,
}

impl QueryError {
    pub(super) fn new(query: &str, at: usize, reason: impl Into<String>) -> Self {
        Self { column: at + 1, reason: reason.into(), query: query.to_owned() }
    }
}

/// The reason, then the query with a mark below the place; of a long query only what is around it.
impl fmt::Display for QueryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AROUND: usize = 60;
        let start = self.column.saturating_sub(1 + AROUND);
        let shown = self.query.chars().skip(start).take(2 * AROUND);
        let shown: String = shown.map(|char| if char.is_control() { ' ' } else { char }).collect();
        let mark = " ".repeat(self.column - 1 - start);
        write!(formatter, "column {}: {}\n  {shown}\n  {mark}^", self.column, self.reason)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A word: part of a field's name, or a keyword.
    Word(String),
    /// In quotes; or a date without.
    Text(String),
    Number(Number),
    /// `-7d`: seconds before now.
    Ago(f64),
    /// An operator, a bracket, a dot, a comma.
    Sign(&'static str),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => write!(formatter, "{word}"),
            Token::Text(text) => write!(formatter, "{text:?}"),
            Token::Number(number) => write!(formatter, "{number}"),
            Token::Ago(seconds) => write!(formatter, "-{seconds}s"),
            Token::Sign(sign) => write!(formatter, "{sign}"),
            Token::End => write!(formatter, "the end"),
        }
    }
}

/// Longer ones first.
const SIGNS: &[&str] = &["==", "!=", "<>", "<=", ">=", "!~", "=", "<", ">", "~", "(", ")", ",", "."];

/// Tokens with the places where they begin, the last being [`Token::End`].
pub(super) fn tokens(query: &str) -> Result<Vec<(usize, Token)>, QueryError> {
    let chars = characters(query)?;
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&char) = chars.get(at) {
        if char.is_whitespace() {
            at += 1;
            continue;
        }
        let (token, end) = token(query, &chars, at)?;
        tokens.push((at, token));
        at = end;
    }
    tokens.push((chars.len(), Token::End));
    Ok(tokens)
}

fn characters(query: &str) -> Result<Vec<char>, QueryError> {
    let chars: Vec<char> = query.chars().collect();
    if chars.len() > MAX_LENGTH {
        let reason = format!("a query has at most {MAX_LENGTH} characters, this one has {}", chars.len());
        return Err(QueryError::new(query, MAX_LENGTH, reason));
    }
    Ok(chars)
}

/// The parts between commas, each with the place where it begins, without spaces around it; a comma in quotes is none.
/// None for an empty list.
pub(super) fn fields(list: &str) -> Result<Vec<(usize, String)>, QueryError> {
    let chars = characters(list)?;
    if chars.iter().all(|char| char.is_whitespace()) {
        return Ok(Vec::new());
    }
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(&char) = chars.get(at) {
        at = match char {
            '"' | '\'' => text(list, &chars, at)?.1,
            ',' => {
                ends.push(at);
                at + 1
            }
            _ => at + 1,
        };
    }
    ends.push(chars.len());
    let mut start = 0;
    let mut fields = Vec::new();
    for end in ends {
        let spaces = chars[start..end].iter().take_while(|char| char.is_whitespace()).count();
        let field: String = chars[start + spaces..end].iter().collect();
        fields.push((start + spaces, field.trim_end().to_owned()));
        start = end + 1;
    }
    Ok(fields)
}

/// The token that begins at `at`, and where the next may begin.
fn token(query: &str, chars: &[char], at: usize) -> Result<(Token, usize), QueryError> {
    let char = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let run = |from: usize, takes: fn(char) -> bool| {
        from + chars[from.min(chars.len())..].iter().take_while(|&&char| takes(char)).count()
    };
    let first = char(at);
    if first == '"' || first == '\'' {
        return text(query, chars, at);
    }
    if first.is_alphabetic() || first == '_' {
        // A hyphen inside a name (`f1-score`): nothing is subtracted here.
        let mut end = run(at, |char| char.is_alphanumeric() || char == '_');
        while char(end) == '-' && char(end + 1).is_alphanumeric() {
            end = run(end + 1, |char| char.is_alphanumeric() || char == '_');
        }
        return Ok((Token::Word(chars[at..end].iter().collect()), end));
    }
    let after_sign = at + usize::from(first == '-' || first == '+');
    let is_number = char(after_sign).is_ascii_digit()
        || (char(after_sign) == '.' && char(after_sign + 1).is_ascii_digit());
    if is_number {
        return number(query, chars, at, after_sign);
    }
    let sign =
        SIGNS.iter().find(|sign| sign.chars().enumerate().all(|(index, part)| char(at + index) == part));
    match sign {
        Some(sign) => Ok((Token::Sign(sign), at + sign.len())),
        None if first == '&' || first == '|' => {
            let word = if first == '&' { "and" } else { "or" };
            Err(QueryError::new(query, at, format!("{first:?} is not understood; write {word}")))
        }
        None => Err(QueryError::new(query, at, format!("{first:?} is not understood here"))),
    }
}

fn text(query: &str, chars: &[char], at: usize) -> Result<(Token, usize), QueryError> {
    let quote = chars[at];
    let mut text = String::new();
    let mut rest = chars.iter().copied().enumerate().skip(at + 1);
    while let Some((index, char)) = rest.next() {
        if char == quote {
            return Ok((Token::Text(text), index + 1));
        }
        if char != '\\' {
            text.push(char);
            continue;
        }
        text.push(match rest.next() {
            Some((_, 'n')) => '\n',
            Some((_, 't')) => '\t',
            Some((_, char @ ('\\' | '"' | '\''))) => char,
            Some((_, other)) => {
                let reason = format!("\\{other} is no escape; \\\\, \\\", \\', \\n and \\t are");
                return Err(QueryError::new(query, index, reason));
            }
            None => break,
        });
    }
    Err(QueryError::new(query, at, "the quote that begins here has no end"))
}

fn number(query: &str, chars: &[char], at: usize, digits: usize) -> Result<(Token, usize), QueryError> {
    let char = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let run = |mut index: usize, takes: &dyn Fn(char) -> bool| {
        while takes(char(index)) {
            index += 1;
        }
        index
    };
    let is_digit = |char: char| char.is_ascii_digit();
    // 2026-11-20, with a time or without, is no subtraction either.
    let integer = run(digits, &is_digit);
    if integer - digits == 4 && at == digits && char(integer) == '-' && char(integer + 1).is_ascii_digit() {
        let end = run(at, &|char: char| char.is_ascii_alphanumeric() || "-:.+".contains(char));
        return Ok((Token::Text(chars[at..end].iter().collect()), end));
    }
    let mut end = integer;
    if char(end) == '.' {
        end = run(end + 1, &is_digit);
    }
    if matches!(char(end), 'e' | 'E') {
        let exponent = end + 1 + usize::from(matches!(char(end + 1), '-' | '+'));
        if char(exponent).is_ascii_digit() {
            end = run(exponent, &is_digit);
        }
    }
    let text: String = chars[at..end].iter().collect();
    let unit = run(end, &|char: char| char.is_alphanumeric() || char == '_');
    if unit > end {
        let name: String = chars[end..unit].iter().collect();
        let seconds = match name.as_str() {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => {
                let reason = format!(
                    "{text}{name} is no number, and no time span (s, m, h, d, w); a name that begins so is written in quotes"
                );
                return Err(QueryError::new(query, at, reason));
            }
        };
        if char(at) != '-' {
            let reason = format!("times are looked up in the past: -{text}{name}");
            return Err(QueryError::new(query, at, reason));
        }
        let value: f64 = text.parse().unwrap_or(f64::NAN);
        return Ok((Token::Ago(-value * seconds), unit));
    }
    match Number::parse(&text) {
        Some(number) => Ok((Token::Number(number), end)),
        None => Err(QueryError::new(query, at, format!("{text} is larger than any number here"))),
    }
}
