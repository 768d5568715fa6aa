//! How text is written on the control connection.

use clap::ValueEnum;

/// A character encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// What servers of this century use (RFC 2640).
    #[default]
    #[value(name = "utf-8", alias = "utf8")]
    Utf8,
    /// ISO 8859-1, for older ones.
    #[value(name = "latin1", aliases = ["latin-1", "iso-8859-1", "iso8859-1"])]
    Latin1,
}

impl Encoding {
    /// Whether this can be written. 0xff cannot: Telnet, whose protocol the control connection
    /// follows (RFC 959, 3.1.1.1), wants it twice, and most servers then read it twice.
    pub fn can_write(self, text: &str) -> bool {
        self == Self::Utf8 || text.chars().all(|c| u32::from(c) < 0xff)
    }

    /// Writes `text` for the wire; `None` if the encoding lacks one of its characters.
    pub fn write(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => Some(text.as_bytes().to_vec()),
            Self::Latin1 => text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect(),
        }
    }

    /// Reads what a server sent; what is wrong in it is replaced.
    pub fn read(self, bytes: &[u8]) -> String {
        match self {
            Self::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Self::Latin1 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_wire() {
        assert_eq!(Encoding::Utf8.write("é"), Some(vec![0xc3, 0xa9]));
        assert_eq!(Encoding::Latin1.write("éa"), Some(vec![0xe9, b'a']));
        assert_eq!(Encoding::Latin1.write("€"), None);
        assert!(Encoding::Latin1.can_write("é"));
        assert!(!Encoding::Latin1.can_write("€") && !Encoding::Latin1.can_write("ÿ"));
        assert_eq!(Encoding::Latin1.read(&[b'a', 0xe9]), "aé");
        assert_eq!(Encoding::Utf8.read(&[b'a', 0xe9]), "a\u{fffd}");
    }
}
