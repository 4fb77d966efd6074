//! What is changed in heads on their way: made ready once per table, written for each message.

use std::borrow::Cow;

use mainstay_http1::Request;
use mainstay_model::rewrite::{
    FieldChanges, FieldPiece, FieldTemplate, Redirect, Rewrite, Variable,
};

/// What variables stand for in one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) client: &'a [u8],
    pub(crate) id: &'a [u8],
    pub(crate) request: &'a Request,
}

impl Values<'_> {
    /// Writes a text with its variables filled in. `rest` is the path behind the part that matched.
    /// What came from the client and could end a line or a URL is percent-encoded.
    fn fill(self, template: &FieldTemplate, rest: &str, out: &mut Vec<u8>) {
        for piece in template.pieces() {
            let variable = match piece {
                FieldPiece::Literal(text) => {
                    out.extend_from_slice(text.as_bytes());
                    continue;
                }
                FieldPiece::Variable(variable) => variable,
            };
            let target = self.request.target();
            let path = self.request.path();
            put_visible(
                out,
                match variable {
                    Variable::Client => self.client,
                    Variable::RequestId => self.id,
                    Variable::Host => self.request.host().unwrap_or_default().as_bytes(),
                    Variable::Path => path.as_bytes(),
                    Variable::Rest => rest.as_bytes(),
                    Variable::Query => &target.as_bytes()[path.len()..],
                },
            );
        }
    }
}

fn put_visible(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        if byte.is_ascii_graphic() {
            out.push(*byte);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
        }
    }
}

/// What is changed in the head of a message.
#[derive(Debug, Default)]
pub(crate) struct FieldPlan {
    /// Names in lower case of what the sender's own lines are not passed on of.
    dropped: Box<[Box<[u8]>]>,
    written: Box<[(Box<[u8]>, FieldTemplate)]>,
}

impl FieldPlan {
    fn of(changes: &FieldChanges) -> Self {
        let name = |name: &mainstay_model::route::FieldName| name.as_str().as_bytes().into();
        let dropped = changes.remove.iter().chain(changes.set.keys());
        let written = changes.set.iter().chain(&changes.add);
        Self {
            dropped: dropped.map(name).collect(),
            written: written
                .map(|(field, template)| (name(field), template.clone()))
                .collect(),
        }
    }

    /// Whether a line of the sender with this name is not passed on.
    pub(crate) fn drops(&self, name: &[u8]) -> bool {
        let mut dropped = self.dropped.iter();
        dropped.any(|one| one.eq_ignore_ascii_case(name))
    }

    /// Gives the lines that come behind the sender's to `put`.
    pub(crate) fn write(&self, values: Values<'_>, mut put: impl FnMut(&[u8], &[u8])) {
        let mut text = Vec::new();
        for (name, template) in &self.written {
            text.clear();
            values.fill(template, "", &mut text);
            put(name, &text);
        }
    }
}

/// What is changed for the instances of one version.
#[derive(Debug)]
pub(crate) struct RewritePlan {
    /// The beginning of a path, and what stands there instead, without a final `/`.
    path: Option<(mainstay_model::PathPrefix, Box<str>)>,
    host: Option<Box<[u8]>>,
    pub(crate) request: FieldPlan,
    pub(crate) response: FieldPlan,
}

impl RewritePlan {
    pub(crate) fn of(rewrite: &Rewrite) -> Self {
        let Rewrite {
            host,
            path,
            request,
            response,
        } = rewrite;
        Self {
            path: path.as_ref().map(|path| {
                let (from, to) = path.parts();
                (from.clone(), to.into())
            }),
            host: host.as_ref().map(|host| host.as_str().as_bytes().into()),
            request: FieldPlan::of(request),
            response: FieldPlan::of(response),
        }
    }

    /// The host that the instance sees, if it is another.
    pub(crate) fn host(&self) -> Option<&[u8]> {
        self.host.as_deref()
    }

    /// The path that becomes `path` for the instance, if there is another than `path` itself.
    pub(crate) fn outside(&self, path: &mainstay_model::PathPrefix) -> Option<Box<str>> {
        let (from, to) = self.path.as_ref()?;
        let rest = path.as_str().strip_prefix(&**to)?;
        let outside = [from.as_str().trim_end_matches('/'), rest].concat();
        (self.target(&outside) == path.as_str()).then(|| outside.into())
    }

    /// The target that the instance sees, for one in origin form or `*`.
    pub(crate) fn target<'t>(&self, target: &'t str) -> Cow<'t, str> {
        let Some((from, to)) = &self.path else {
            return Cow::Borrowed(target);
        };
        let path_len = target.find('?').unwrap_or(target.len());
        let (path, query) = target.split_at(path_len);
        let Some(rest) = rest_of(from, path) else {
            return Cow::Borrowed(target);
        };
        // One slash between the two: `//host` is another server to whoever reads it as a URL.
        let rest = rest.trim_start_matches('/');
        let slash = if rest.is_empty() && !to.is_empty() && !path.ends_with('/') {
            ""
        } else {
            "/"
        };
        Cow::Owned([to, slash, rest, query].concat())
    }
}

/// What follows in a path behind a prefix that covers it: nothing, or what begins with `/`.
pub(crate) fn rest_of<'p>(prefix: &mainstay_model::PathPrefix, path: &'p str) -> Option<&'p str> {
    if !prefix.covers(path) {
        return None;
    }
    Some(match prefix.as_str() {
        "/" => path,
        text => &path[text.len()..],
    })
}

/// Where a redirect leads a request that it took. One that stays on this server never becomes one
/// that names another: `//host` does so to browsers, and `/\host`, too.
pub(crate) fn location(redirect: &Redirect, values: Values<'_>) -> Vec<u8> {
    let rest = rest_of(&redirect.on.path, values.request.path()).unwrap_or_default();
    let mut location = Vec::new();
    values.fill(redirect.to.template(), rest, &mut location);
    if location.first() == Some(&b'/') {
        let others = location[1..].iter();
        let more = others
            .take_while(|byte| matches!(byte, b'/' | b'\\'))
            .count();
        location.drain(1..=more);
    }
    location
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::tests::request;
    use mainstay_model::rewrite::{PathRewrite, RedirectStatus, Target};
    use mainstay_model::route::FieldName;
    use mainstay_model::{HttpMatch, PathPrefix};

    fn path(text: &str) -> PathPrefix {
        PathPrefix::parse(text).unwrap()
    }

    fn plan(path: PathRewrite) -> RewritePlan {
        RewritePlan::of(&Rewrite {
            path: Some(path),
            ..Rewrite::default()
        })
    }

    #[test]
    fn a_paths_beginning_is_changed_by_whole_segments_and_the_query_stays() {
        let strip = plan(PathRewrite::Strip(path("/shop")));
        for (target, expected) in [
            ("/shop", "/"),
            ("/shop/", "/"),
            ("/shop?a=/shop", "/?a=/shop"),
            ("/shop/7?a", "/7?a"),
            ("/shopping", "/shopping"),
            ("/other/shop", "/other/shop"),
            ("/shop//evil.example/x", "/evil.example/x"),
            ("/shop/shop/7", "/shop/7"),
            ("*", "*"),
        ] {
            assert_eq!(strip.target(target), expected, "{target}");
        }
        let replace = plan(PathRewrite::Replace(path("/old"), path("/new/er")));
        for (target, expected) in [
            ("/old", "/new/er"),
            ("/old/", "/new/er/"),
            ("/old/7?a", "/new/er/7?a"),
            ("/older", "/older"),
        ] {
            assert_eq!(replace.target(target), expected, "{target}");
        }
        let prefix = plan(PathRewrite::Replace(path("/"), path("/api")));
        assert_eq!(prefix.target("/x?y"), "/api/x?y");
        assert_eq!(prefix.target("/"), "/api/");
        let root = plan(PathRewrite::Replace(path("/old"), path("/")));
        assert_eq!(root.target("/old/x"), "/x");
        assert_eq!(root.target("/old"), "/");
    }

    fn values(request: &Request) -> Values<'_> {
        Values {
            client: b"192.0.2.1",
            id: b"id-1",
            request,
        }
    }

    #[test]
    fn headers_are_removed_then_set_then_added() {
        let name = |text: &str| FieldName::parse(text).unwrap();
        let text = |text: &str| FieldTemplate::parse(text).unwrap();
        let plan = FieldPlan::of(&FieldChanges {
            remove: [name("Server")].into(),
            set: [(name("X-Client"), text("{client} {request_id} {{x}}"))].into(),
            add: [(name("X-Path"), text("{host}{path}{query}"))].into(),
        });
        assert!(plan.drops(b"SERVER") && plan.drops(b"x-client") && !plan.drops(b"x-path"));
        let request = request("GET /a/b?c=d", "host: shop:81\r\n");
        let mut lines = Vec::new();
        plan.write(values(&request), |name, value| {
            lines.push([name, b": ", value].concat());
        });
        let lines: Vec<_> = lines
            .iter()
            .map(|line| str::from_utf8(line).unwrap())
            .collect();
        assert_eq!(
            lines,
            ["x-client: 192.0.2.1 id-1 {x}", "x-path: shop:81/a/b?c=d"]
        );
    }

    #[test]
    fn a_redirect_stays_on_the_server_that_was_written() {
        let led = |on: &str, to: &str, target: &str| {
            let redirect = Redirect {
                on: HttpMatch::new(None, path(on)),
                to: Target::parse(to).unwrap(),
                status: RedirectStatus::Found,
            };
            let request = request(&format!("GET {target}"), "host: shop:81\r\n");
            String::from_utf8(location(&redirect, values(&request))).unwrap()
        };
        assert_eq!(led("/old", "/new{rest}{query}", "/old/7?a=b"), "/new/7?a=b");
        assert_eq!(led("/old", "/new{rest}", "/old"), "/new");
        let https = "https://{host}{path}{query}";
        assert_eq!(led("/", https, "/x?y"), "https://shop:81/x?y");
        assert_eq!(
            led("/", "https://a.example{rest}", "/x"),
            "https://a.example/x"
        );
        for target in [
            "/go//evil.example",
            "/go/\\evil.example",
            "/go///\\/evil.example",
        ] {
            assert_eq!(led("/go", "/{rest}", target), "/evil.example", "{target}");
        }
    }
}
