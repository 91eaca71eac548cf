//! A look at a contract's source before the compiler sees it: imports, syntax, sizes, nesting.
//!
//! The compiler recurses into nested option values without a bound, answers a hostile import with the words "invalid
//! group name", and takes seconds for tens of thousands of messages. So a scan over the tokens refuses what is too
//! large, too deep or not to be imported, in words that help; everything else is left to the compiler.

/// What the tokens of a source show.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Imported names with their lines.
    pub imports: Vec<(String, usize)>,
    /// The value of `syntax = "..."`.
    pub syntax: Option<String>,
    /// Is there an `edition = "..."`?
    pub edition: bool,
    /// Message definitions.
    pub messages: usize,
    /// Message definitions inside each other.
    pub message_depth: usize,
    /// Brackets of any kind inside each other.
    pub depth: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Text(&'a str),
    Mark(char),
}

/// Reads tokens until the end or the first thing that is no token, which the compiler will report.
pub(super) fn scan(source: &str) -> Scan {
    let mut scan = Scan::default();
    let mut statement: Vec<Token<'_>> = Vec::new();
    // Whether each open brace is a message's.
    let mut open: Vec<bool> = Vec::new();
    let mut message_depth = 0_usize;
    let mut brackets = 0_usize;
    let mut lexer = Lexer { rest: source, line: 1 };
    while let Some(token) = lexer.next() {
        match token {
            Token::Mark('{') => {
                let message = matches!(statement.as_slice(), [Token::Word("message"), Token::Word(_)]);
                open.push(message);
                scan.messages += usize::from(message);
                message_depth += usize::from(message);
                scan.message_depth = scan.message_depth.max(message_depth);
                statement.clear();
            }
            Token::Mark('}') => {
                message_depth -= usize::from(open.pop() == Some(true));
                statement.clear();
            }
            Token::Mark(';') => {
                scan.statement(&statement, lexer.line);
                statement.clear();
            }
            Token::Mark('[' | '<') => brackets += 1,
            Token::Mark(']' | '>') => brackets = brackets.saturating_sub(1),
            token if statement.len() < 4 => statement.push(token),
            _ => {}
        }
        scan.depth = scan.depth.max(open.len() + brackets);
    }
    scan
}

impl Scan {
    fn statement(&mut self, tokens: &[Token<'_>], line: usize) {
        match tokens {
            [Token::Word("import"), Token::Text(name)]
            | [Token::Word("import"), Token::Word("public" | "weak" | "option"), Token::Text(name)] => {
                self.imports.push(((*name).to_owned(), line));
            }
            [Token::Word("syntax"), Token::Mark('='), Token::Text(syntax)] => {
                self.syntax = Some((*syntax).to_owned());
            }
            [Token::Word("edition"), Token::Mark('='), Token::Text(_)] => self.edition = true,
            _ => {}
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_space_and_comments()?;
        let first = self.rest.chars().next()?;
        if first.is_ascii_alphanumeric() || first == '_' || first == '.' {
            let end =
                self.rest.find(|char: char| !(char.is_ascii_alphanumeric() || char == '_' || char == '.'));
            return self.take(end.unwrap_or(self.rest.len())).map(Token::Word);
        }
        if first == '"' || first == '\'' {
            let end = string_end(self.rest, first)?;
            let text = self.take(end)?;
            return text.get(1..end - 1).map(Token::Text);
        }
        self.take(first.len_utf8())?;
        Some(Token::Mark(first))
    }

    fn skip_space_and_comments(&mut self) -> Option<()> {
        loop {
            let space = self.rest.find(|char: char| !char.is_whitespace()).unwrap_or(self.rest.len());
            self.take(space)?;
            let end = if self.rest.starts_with("//") {
                self.rest.find('\n').unwrap_or(self.rest.len())
            } else if self.rest.starts_with("/*") {
                self.rest.get(2..)?.find("*/")? + 4
            } else {
                return Some(());
            };
            self.take(end)?;
        }
    }

    fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.line += taken.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
        Some(taken)
    }
}

/// Where a string that begins the text ends, behind its closing quote.
fn string_end(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' => return None,
            _ if char == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_what_matters_and_nothing_in_comments_or_strings() {
        let found = scan(
            r#"/* message X { */ syntax = "proto3"; // import "no.proto";
            import 'a.proto'; import public "b/c.proto";
            message A{ message B { string message = 1 [(x) = "message C {"]; } map<string, double> m = 2; }
            message D { oneof k { double message_a = 1; } }
            service S { rpc F (A) returns (D) {} }"#,
        );
        let expected = Scan {
            imports: vec![("a.proto".to_owned(), 2), ("b/c.proto".to_owned(), 2)],
            syntax: Some("proto3".to_owned()),
            edition: false,
            messages: 3,
            message_depth: 2,
            depth: 3,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn ends_on_anything() {
        for text in
            ["\"", "/*", "message A {", "'\\", "}}}}", "import", "\u{0}", "é = \"", "import \"a\nb\";"]
        {
            let found = scan(text);
            assert!(found.imports.is_empty(), "{text:?} {found:?}");
        }
        assert_eq!(scan(&"{".repeat(100_000)).depth, 100_000);
        assert_eq!(scan(&"message A {".repeat(40)).message_depth, 40);
    }
}
