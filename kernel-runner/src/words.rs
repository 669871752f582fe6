//! Splits a command line into words as a shell would, for images without a shell.

/// A command line that only a shell can carry out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// A quote that is never closed.
    #[error("unbalanced quote")]
    Quote,
    /// Something that means an action of the shell.
    #[error("`{0}` needs a shell, and the image has none")]
    Operator(char),
}

/// The words of a simple command: quotes and backslashes as in POSIX. Variables, patterns
/// and `~` stay as they are written; operators are refused.
pub fn split(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    // `Some` inside a word, which may be empty because of quotes.
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(WordsError::Quote)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(WordsError::Quote)? {
                        '"' => break,
                        '\\' => match chars.next().ok_or(WordsError::Quote)? {
                            '\n' => {}
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => word.get_or_insert_default().push('\\'),
            },
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '`' => return Err(WordsError::Operator(c)),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_the_shell() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  a  b\tc\n", &["a", "b", "c"]),
            (r#"echo "a b" 'c d' e\ f"#, &["echo", "a b", "c d", "e f"]),
            (r#"x'a'"b"c '' "" "#, &["xabc", "", ""]),
            (r#""a\"b\\c\$d\e""#, &[r#"a"b\c$d\e"#]),
            ("a # comment\nb#c", &["a", "b#c"]),
            ("a\\\nb", &["ab"]),
        ];
        for (line, expected) in cases {
            assert_eq!(split(line).unwrap(), *expected, "{line:?}");
        }
        assert_eq!(split("a 'b"), Err(WordsError::Quote));
        assert_eq!(split("a && b"), Err(WordsError::Operator('&')));
        assert_eq!(split("'a|b' > c"), Err(WordsError::Operator('>')));
    }
}
