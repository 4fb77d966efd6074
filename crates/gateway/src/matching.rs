//! Which requests a match takes: made ready once per table, looked at for each request.

use mainstay_http1::{Fields, Known, Request};
use mainstay_model::route::{CookieName, FieldName, MatchValue, Wanted};
use mainstay_model::{HttpMatch, PathPrefix};

/// A header or a cookie that must be there.
#[derive(Debug)]
struct Condition {
    /// A header's in lower case.
    name: Box<[u8]>,
    /// Which header, if it is one that was found while parsing.
    known: Known,
    /// What it must say; `None`: anything.
    value: Option<Box<[u8]>>,
}

impl Condition {
    fn of(name: &str, value: Option<String>) -> Self {
        let name = name.as_bytes();
        Self {
            name: name.into(),
            known: Known::of(name),
            value: value.map(|value| value.into_bytes().into()),
        }
    }

    fn holds(&self, value: &[u8]) -> bool {
        self.value.as_ref().is_none_or(|wanted| **wanted == *value)
    }
}

/// Headers and cookies that requests are held against.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    headers: Box<[Condition]>,
    cookies: Box<[Condition]>,
}

impl Conditions {
    pub(crate) fn of(headers: &Wanted<FieldName>, cookies: &Wanted<CookieName>) -> Self {
        let text =
            |value: &Option<MatchValue>| value.as_ref().map(|value| value.as_str().to_owned());
        let headers = headers.iter();
        let cookies = cookies.iter();
        Self {
            headers: headers
                .map(|(name, value)| Condition::of(name.as_str(), text(value)))
                .collect(),
            cookies: cookies
                .map(|(name, value)| Condition::of(name.as_str(), text(value)))
                .collect(),
        }
    }

    /// Whether all of them hold.
    fn all_hold(&self, fields: &Fields) -> bool {
        self.headers.iter().all(|one| has_header(fields, one))
            && self.cookies.iter().all(|one| has_cookie(fields, one))
    }

    /// Whether any of them holds.
    pub(crate) fn any_holds(&self, fields: &Fields) -> bool {
        self.headers.iter().any(|one| has_header(fields, one))
            || self.cookies.iter().any(|one| has_cookie(fields, one))
    }
}

fn has_header(fields: &Fields, condition: &Condition) -> bool {
    header_lines(fields, condition.known, &condition.name).any(|line| condition.holds(line))
}

fn has_cookie(fields: &Fields, condition: &Condition) -> bool {
    cookies(fields, &condition.name).any(|value| condition.holds(value))
}

/// The lines of a header, whole. `name` is in lower case.
pub(crate) fn header_lines<'f>(
    fields: &'f Fields,
    known: Known,
    name: &'f [u8],
) -> impl Iterator<Item = &'f [u8]> {
    let is_it = move |field: &mainstay_http1::Field<'_>| {
        field.known == known && (known != Known::Other || field.name.eq_ignore_ascii_case(name))
    };
    fields.iter().filter(is_it).map(|field| field.value)
}

/// The values that cookies of this name have (RFC 6265, 5.4), without quotes around them.
pub(crate) fn cookies<'f>(fields: &'f Fields, name: &'f [u8]) -> impl Iterator<Item = &'f [u8]> {
    let pairs = fields.all(Known::Cookie);
    let pairs = pairs.flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name)?.strip_prefix(b"=")?;
        let quoted = value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value))
    })
}

/// A match without its host.
#[derive(Debug)]
pub(crate) struct Match {
    pub(crate) path: PathPrefix,
    methods: Box<[Box<str>]>,
    conditions: Conditions,
    /// How many there are, the methods as one.
    count: usize,
}

impl Match {
    pub(crate) fn of(found: &HttpMatch) -> Self {
        let methods = found.methods.iter();
        Self {
            path: found.path.clone(),
            methods: methods.map(|method| method.as_str().into()).collect(),
            conditions: Conditions::of(&found.headers, &found.cookies),
            count: found.conditions(),
        }
    }

    /// Matches with a greater rank are asked first: the longer path, then more conditions.
    pub(crate) fn rank(&self) -> (usize, usize) {
        (self.path.as_str().len(), self.count)
    }

    pub(crate) fn takes(&self, request: &Request, path: &str) -> bool {
        if !self.path.covers(path) {
            return false;
        }
        if self.count == 0 {
            return true;
        }
        let method = request.method_name();
        (self.methods.is_empty() || self.methods.iter().any(|one| **one == *method))
            && self.conditions.all_hold(&request.fields)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;
    use mainstay_http1::HeadLimits;

    /// A request with these lines behind its first.
    pub(crate) fn request(first: &str, lines: &str) -> Request {
        let limits = HeadLimits {
            len_max: 64 * 1024,
            fields_max: 100,
        };
        let text = format!("{first} HTTP/1.1\r\n{lines}\r\n");
        Request::parse(Bytes::from(text), limits).unwrap()
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_any_line() {
        let request = request(
            "GET /",
            "host: a\r\ncookie: ab=1; a=2;a=\"3\";  b = 4\r\ncookie: a=5\r\n",
        );
        let values = |name: &str| -> Vec<String> {
            let found = cookies(&request.fields, name.as_bytes());
            found
                .map(|value| String::from_utf8(value.to_vec()).unwrap())
                .collect()
        };
        assert_eq!(values("a"), ["2", "3", "5"]);
        assert_eq!(values("ab"), ["1"]);
        assert_eq!(values("A"), [""; 0], "names of cookies differ by case");
    }
}
