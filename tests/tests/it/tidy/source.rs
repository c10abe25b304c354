//! A Rust source as tidy reads it: without comments, without the modules that are tests, and with
//! what stands between quotes told from code.

/// A source file of the product.
pub(super) struct Source {
    letters: Vec<Letter>,
    /// The modules kept in files of their own that are tests, by name.
    pub(super) test_files: Vec<String>,
}

/// A character, and where it stands.
#[derive(Clone, Copy)]
struct Letter {
    character: char,
    place: Place,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Place {
    Code,
    /// Between quotes.
    Literal,
}

/// What precedes a module that is tests.
const TEST_ATTRIBUTE: &str = "#[cfg(test)]";

impl Source {
    pub(super) fn read(text: &str) -> Self {
        let mut source = Self { letters: without_comments(text), test_files: Vec::new() };
        source.drop_test_modules();
        source
    }

    /// The code: a literal's quotes are there, and what is between them is not.
    pub(super) fn code(&self) -> String {
        self.letters.iter().filter_map(|letter| letter.code()).collect()
    }

    /// The code with its literals.
    pub(super) fn whole(&self) -> String {
        self.letters.iter().map(|letter| letter.character).collect()
    }

    /// What stands between quotes, each by itself.
    pub(super) fn literals(&self) -> Vec<String> {
        let mut found = vec![String::new()];
        for letter in &self.letters {
            match (letter.place, found.last_mut()) {
                (Place::Literal, Some(literal)) => literal.push(letter.character),
                (Place::Code, Some(literal)) if !literal.is_empty() => found.push(String::new()),
                (Place::Code, _) | (Place::Literal, None) => {}
            }
        }
        found.retain(|literal| !literal.is_empty());
        found
    }

    /// The code's words: names, keywords and numbers.
    pub(super) fn words(&self) -> Vec<String> {
        let code = self.code();
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// Removes `#[cfg(test)] mod name { .. }` and `#[cfg(test)] mod name;`. The attribute before
    /// anything else stays, to be found.
    fn drop_test_modules(&mut self) {
        let mut at = 0;
        while at < self.letters.len() {
            match self.test_module(at) {
                Some((end, file)) => {
                    self.letters.drain(at..end);
                    self.test_files.extend(file);
                }
                None => at += 1,
            }
        }
    }

    /// Where the test module that begins at `start` ends, and its name if it is a file's.
    fn test_module(&self, start: usize) -> Option<(usize, Option<String>)> {
        let mut at = self.skip(start, TEST_ATTRIBUTE)?;
        while let Some(attribute) = self.skip(at, "#[") {
            at = self.after(attribute, ']')?;
        }
        for visibility in ["pub(crate)", "pub(super)", "pub"] {
            at = self.skip(at, visibility).unwrap_or(at);
        }
        let name = self.skip(at, "mod ")?;
        let (end, last) = (name..self.letters.len())
            .filter_map(|at| Some((at, self.letters.get(at)?.code()?)))
            .find(|(_, c)| matches!(c, '{' | ';'))?;
        let text: String = self.letters.get(name..end)?.iter().map(|letter| letter.character).collect();
        match last {
            ';' => Some((end + 1, Some(text.trim().to_owned()))),
            _ => Some((self.closing_brace(end)? + 1, None)),
        }
    }

    /// Past `word` and the white space behind it, where the code goes on with it at `at`.
    fn skip(&self, at: usize, word: &str) -> Option<usize> {
        let mut letters = self.letters.get(at..)?.iter();
        let mut end = at;
        for expected in word.chars() {
            (letters.next()?.code()? == expected).then_some(())?;
            end += 1;
        }
        Some(end + letters.take_while(|letter| letter.code().is_some_and(char::is_whitespace)).count())
    }

    fn after(&self, at: usize, character: char) -> Option<usize> {
        let found = (at..self.letters.len()).find(|at| self.code_at(*at) == Some(character))?;
        self.skip(found, &character.to_string())
    }

    /// The brace that closes the one at `open`.
    fn closing_brace(&self, open: usize) -> Option<usize> {
        let mut depth = 0_usize;
        (open..self.letters.len()).find(|at| {
            match self.code_at(*at) {
                Some('{') => depth += 1,
                Some('}') => depth -= 1,
                _ => return false,
            }
            depth == 0
        })
    }

    fn code_at(&self, at: usize) -> Option<char> {
        self.letters.get(at)?.code()
    }
}

impl Letter {
    const fn code(&self) -> Option<char> {
        match self.place {
            Place::Code => Some(self.character),
            Place::Literal => None,
        }
    }
}

/// What stands on both sides of a literal, whatever it was in the source.
const QUOTE: Letter = Letter { character: '"', place: Place::Code };

fn without_comments(text: &str) -> Vec<Letter> {
    let mut letters = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(character) = rest.chars().next() {
        let is_word = before.is_alphanumeric() || before == '_';
        let (literal, taken) = if rest.starts_with("//") {
            (None, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (None, block_comment_len(rest))
        } else if let Some((literal, taken)) = (!is_word).then(|| raw_text(rest)).flatten() {
            (Some(literal), taken)
        } else if character == '"' {
            let taken = quoted_len(rest, '"');
            (Some(1..taken - 1), taken)
        } else if let Some(taken) = character_len(rest) {
            (Some(1..taken - 1), taken)
        } else {
            letters.push(Letter { character, place: Place::Code });
            (None, character.len_utf8())
        };
        if let Some(literal) = literal {
            letters.push(QUOTE);
            let inside = rest.get(literal).unwrap_or_default().chars();
            letters.extend(inside.map(|character| Letter { character, place: Place::Literal }));
            letters.push(QUOTE);
        }
        before = character;
        rest = rest.get(taken..).unwrap_or_default();
    }
    letters
}

/// Block comments nest.
fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// `r"..."`, `br#"..."#` and their like: what is inside, and how long it all is.
fn raw_text(text: &str) -> Option<(std::ops::Range<usize>, usize)> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| text.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"')))?;
    let hashes = text.get(prefix.len()..)?.find('"')?;
    let begin = prefix.len() + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    let len = text.get(begin..)?.find(&close)?;
    Some((begin..begin + len, begin + len + close.len()))
}

/// How long the literal is that begins here and ends with the next `quote` that is not escaped.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// How long the character between single quotes is that begins here. A lifetime is none.
fn character_len(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    let closed = inside.get(first.len_utf8()..)?.starts_with('\'');
    (first == '\\' || closed).then(|| quoted_len(text, '\''))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of everything that has misled a search for words.
    const SAMPLE: &str = r##"//! 8883 in a comment.
/* and /* in one */ inside it */
const BRACE: char = '{'; const QUOTE: char = '\''; const TEXT: &str = "} // \" 1883 /*";
fn borrow<'a>(raw: &'a str) -> &'a str { r#"a "raw" } text"#; raw }
#[cfg(test)]
#[allow(clippy::panic)]
pub(crate) mod inside { fn brace() { "}"; '}'; /* } */ } }
#[cfg(test)] mod aside;
#[cfg(test)]
fn stays() {}
fn last() { b"bytes"; }
"##;

    #[test]
    fn comments_and_test_modules_are_no_code() {
        let code = Source::read(SAMPLE).code();
        assert!(!code.contains("8883") && !code.contains("and") && !code.contains("inside"), "{code}");
        assert!(!code.contains("brace") && !code.contains("aside"), "{code}");
        assert!(code.contains("fn last() { b\"\"; }"), "{code}");
        assert!(code.contains("fn borrow<'a>(raw: &'a str) -> &'a str { \"\"; raw }"), "{code}");
    }

    #[test]
    fn the_test_attribute_before_anything_but_a_module_stays() {
        let source = Source::read(SAMPLE);
        assert_eq!(source.code().matches(TEST_ATTRIBUTE).count(), 1);
        assert!(source.words().contains(&"stays".to_owned()));
        assert_eq!(source.test_files, ["aside"]);
    }

    #[test]
    fn literals_are_told_from_code() {
        let literals = Source::read(SAMPLE).literals();
        assert_eq!(literals, ["{", "\\'", "} // \\\" 1883 /*", "a \"raw\" } text", "bytes"]);
    }
}
