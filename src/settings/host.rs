//! What the user means by HOST.

use std::fmt;
use std::net::Ipv6Addr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use percent_encoding::percent_decode_str;

/// The port of an FTP server's control connection (RFC 959).
const FTP_PORT: u16 = 21;

/// The port where TLS begins at once: what `ftps://` means to curl and others.
pub const FTPS_PORT: u16 = 990;

/// A server, as far as HOST names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A name or an address; an IPv6 address without brackets.
    pub name: String,
    /// The control connection's port.
    pub port: u16,
    /// Whether the address is an `ftps://` one: nothing may go there in the clear.
    pub secure: bool,
    /// The account in an `ftp://` address.
    pub user: Option<String>,
    /// The password in an `ftp://` address.
    pub password: Option<String>,
    /// The directory in an `ftp://` address: relative to where the login leads, unless it begins
    /// with a slash (`ftp://host//abs/dir`).
    pub dir: Option<String>,
}

impl Host {
    /// Reads `name`, `name:port`, `[v6]:port` or `ftp://user@name:port/dir`; without a port in it,
    /// `default_port` or 21, or 990 with `ftps://`.
    ///
    /// # Errors
    /// Says what is wrong with `text` and what is accepted.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self> {
        Self::read(text, default_port)
            .with_context(|| format!("HOST '{}' cannot be used", without_password(text)))
    }

    fn read(text: &str, default_port: Option<u16>) -> Result<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => (String::new(), text),
        };
        let (authority, dir, userinfo) = match scheme.as_str() {
            "" => (rest, None, None),
            "ftp" | "ftps" => {
                let (authority, dir) = match rest.split_once('/') {
                    Some((authority, dir)) => (authority, Some(decode(dir)?)),
                    None => (rest, None),
                };
                match authority.rsplit_once('@') {
                    Some((userinfo, host)) => (host, dir, Some(userinfo)),
                    None => (authority, dir, None),
                }
            }
            other => bail!("{other}:// is not spoken here, only ftp:// and ftps://"),
        };
        let (user, password) = match userinfo.map(|info| info.split_once(':').unwrap_or((info, "")))
        {
            None => (None, None),
            Some((user, "")) => (Some(decode(user)?), None),
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
        };
        ensure!(
            userinfo.is_some() || !authority.contains(['/', '@']) || !scheme.is_empty(),
            "did you mean {}?",
            meant(&without_password(text))
        );
        let (name, port) = split_port(authority)?;
        ensure!(
            name.is_empty() || name.contains(|c: char| !c.is_ascii_digit()),
            "it is only a number: options take their values as in --poll=5"
        );
        let forms = "give NAME, NAME:PORT, [IPV6]:PORT or ftp://USER@NAME:PORT/DIR";
        ensure!(!name.is_empty(), "the name is missing: {forms}");
        ensure!(
            !name
                .contains(|c: char| c.is_control() || c.is_whitespace() || "/@[]*?'\"".contains(c)),
            "'{}' is not a host name: {forms}",
            name.escape_debug()
        );
        let secure = scheme == "ftps";
        let usual_port = if secure { FTPS_PORT } else { FTP_PORT };
        Ok(Self {
            name: name.to_owned(),
            port: port.or(default_port).unwrap_or(usual_port),
            secure,
            user,
            password,
            dir: dir.filter(|dir| !dir.is_empty()),
        })
    }
}

/// The name, with the port unless it is 21.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name.contains(':'), self.port) {
            (_, FTP_PORT) => f.write_str(&self.name),
            (true, port) => write!(f, "[{}]:{port}", self.name),
            (false, port) => write!(f, "{}:{port}", self.name),
        }
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>)> {
    // An IPv6 address may stand without brackets, and with a zone (fe80::1%eth0).
    let address = authority.split_once('%').map_or(authority, |(a, _)| a);
    if address.parse::<Ipv6Addr>().is_ok() {
        return Ok((authority, None));
    }
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').context("']' is missing")?;
            let address = name.split_once('%').map_or(name, |(a, _)| a);
            ensure!(address.parse::<Ipv6Addr>().is_ok(), "'{name}' is not an IPv6 address");
            (name, port.strip_prefix(':').or((!port.is_empty()).then_some(port)))
        }
        None => match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None => None,
        Some(port) => match port.parse() {
            // What stands there may be a password.
            Ok(0) | Err(_) => bail!("a port is a number from 1 to 65535"),
            Ok(port) => Some(port),
        },
    };
    Ok((name, port))
}

fn decode(text: &str) -> Result<String> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| anyhow!("a part of it is not UTF-8 once its %-codes are decoded"))?;
    ensure!(!text.contains(char::is_control), "it has a control character in it");
    Ok(text.into_owned())
}

/// What is nearest to being an address.
fn meant(text: &str) -> String {
    let (scheme, rest) = match text.split_once(":/") {
        Some((scheme @ ("ftp" | "ftps"), rest)) => (scheme, rest),
        _ => ("ftp", text),
    };
    format!("{scheme}://{}", rest.trim_start_matches('/'))
}

/// `text` with what may be a password left out, for messages: all from the first colon to the last
/// `@`, and in an address without one, what should be a port and is no number.
fn without_password(text: &str) -> String {
    let at = text.find("//").map_or(0, |slashes| slashes + 2);
    let (scheme, rest) = text.split_at(at);
    let (start, end) = match (rest.find(':'), rest.rfind('@')) {
        (Some(colon), Some(end)) if colon < end => (colon + 1, end),
        (Some(_), None) if at > 0 => {
            let colon = rest.rfind(':').unwrap_or_default() + 1;
            let digits = rest[colon..].chars().take_while(char::is_ascii_digit).count();
            let is_port = matches!(rest[colon + digits..].chars().next(), None | Some('/'));
            if is_port || rest.starts_with('[') {
                return text.to_owned();
            }
            (colon, rest.len())
        }
        _ => return text.to_owned(),
    };
    format!("{scheme}{}...{}", &rest[..start], &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_host() {
        // text, name, port, user, password, dir
        type Case<'a> = (&'a str, &'a str, u16, Option<&'a str>, Option<&'a str>, Option<&'a str>);
        let table: &[Case] = &[
            ("esp32.local", "esp32.local", 21, None, None, None),
            ("esp32:2121", "esp32", 2121, None, None, None),
            ("192.168.4.1", "192.168.4.1", 21, None, None, None),
            ("::1", "::1", 21, None, None, None),
            ("[::1]", "::1", 21, None, None, None),
            ("[fe80::1%eth0]:2121", "fe80::1%eth0", 2121, None, None, None),
            ("ftps://h", "h", 990, None, None, None),
            ("ftps://h:2121/d", "h", 2121, None, None, Some("d")),
            ("ftp://h", "h", 21, None, None, None),
            ("FTP://h/", "h", 21, None, None, None),
            ("ftp://u@h:99/a/b", "h", 99, Some("u"), None, Some("a/b")),
            ("ftp://u%40x:p%3A@h//a", "h", 21, Some("u@x"), Some("p:"), Some("/a")),
            ("ftp://[::1]:99/%2Fflash", "::1", 99, None, None, Some("/flash")),
        ];
        for (text, name, port, user, password, dir) in table {
            let host = Host::parse(text, None).expect(text);
            assert_eq!(host.name, *name, "{text}");
            assert_eq!(host.port, *port, "{text}");
            assert_eq!(host.user.as_deref(), *user, "{text}");
            assert_eq!(host.password.as_deref(), *password, "{text}");
            assert_eq!(host.dir.as_deref(), *dir, "{text}");
        }
        assert_eq!(Host::parse("h", Some(2121)).expect("good").port, 2121);
        assert_eq!(Host::parse("h:99", Some(2121)).expect("good").port, 99);
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "h:",
            "h:0",
            "h:70000",
            "h:ftp",
            "[::1",
            "[x]:1",
            "http://h",
            "sftp://h",
            "a b",
            "h/dir",
            "u@h",
            "ftp://u@/x",
            "ftp://h/a%0d%0aDELE%20b",
            "ftp://a%00b@h",
        ] {
            assert!(Host::parse(text, None).is_err(), "{text}");
        }
        for text in [
            "ftp://u:s3cret@h:x",
            "u:s3cret@h",
            "//u:s3cret@h",
            "ftp:/u:s3cret@h",
            "ftp://u:s3cret",
            "ftp://u:s3c/ret@h",
            "ftp://u:s3%FFret@h",
        ] {
            let error = format!("{:#}", Host::parse(text, None).expect_err(text));
            assert!(!error.contains("s3"), "{error}");
        }
        for text in ["h:70000", "ftp://u@/x", "[::1", "http://h:80/x"] {
            assert_eq!(without_password(text), text);
        }
    }

    #[test]
    fn shown() {
        for (text, shown) in
            [("h", "h"), ("h:99", "h:99"), ("[::1]:99", "[::1]:99"), ("::1", "::1")]
        {
            assert_eq!(Host::parse(text, None).expect(text).to_string(), shown);
        }
    }
}
