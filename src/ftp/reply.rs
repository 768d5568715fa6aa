//! The servers: what they answer, and what follows from it.

use std::fmt;

/// A server's answer to a command (RFC 959, 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The reply code, 100 to 599. Servers choose different ones for one cause: compare classes.
    pub code: u16,
    /// Its lines without the codes; raw.
    pub text: String,
}

impl Reply {
    /// Reads a complete reply, of one line or several; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().collect();
        let code = code_of(lines.last()?.as_bytes())?;
        let lines: Vec<&str> = (lines.iter())
            .map(|line| match code_of(line.as_bytes()) {
                Some(found) if found == code => line.get(4..).unwrap_or_default(),
                _ => line,
            })
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        Some(Self { code, text: lines.join("\n") })
    }

    /// 1xx: the server goes on and will reply again.
    pub fn is_preliminary(&self) -> bool {
        self.code / 100 == 1
    }

    /// 2xx: done.
    pub fn is_completion(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: so far so good, the next command completes it.
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// What is wrong with one that answers something else than was asked.
    pub fn misfit(&self) -> String {
        format!("an answer that does not fit: {self}")
    }

    /// Whether it is about encryption that is not there.
    pub fn wants_tls(&self) -> bool {
        let said = self.text.to_ascii_lowercase();
        self.code / 100 >= 4
            && ["tls", "ssl", "encrypt", "cleartext"].iter().any(|word| said.contains(word))
    }

    /// The server does not know the command, or not with such arguments. It will not learn it.
    pub fn is_unknown_command(&self) -> bool {
        matches!(self.code, 500..=502 | 504) && !self.text.starts_with("OOPS")
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text.replace('\n', " ");
        write!(f, "{} {}", self.code, text.trim_end_matches('.'))
    }
}

/// The three digits a reply line begins with.
pub fn code_of(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    digits.iter().try_fold(0, |code, digit| {
        digit.is_ascii_digit().then(|| code * 10 + u16::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn parse(text: &str) -> Option<(u16, String)> {
        Reply::parse(text).map(|reply| (reply.code, reply.text))
    }

    #[test]
    fn replies() {
        assert_eq!(parse("226 Done.\r\n"), Some((226, "Done.".into())));
        assert_eq!(parse("226\r\n"), Some((226, String::new())));
        assert_eq!(
            parse("211-Free:\r\n 100 KB\r\n211-more\r\n211 End.\r\n"),
            Some((211, "Free:\n100 KB\nmore\nEnd.".into()))
        );
        assert_eq!(parse("SSH-2.0-OpenSSH\r\n"), None);
        assert_eq!(parse("22"), None);
        assert_eq!(parse(""), None);
    }
}
