//! JSON as people read it, without a change to what it says: numbers keep all their digits.

use crate::text;

/// A larger body is not shown or edited in a browser.
pub(super) const EDITED_BYTES_MAX: usize = 256 * 1024;

/// JSON with a line for each field. Only blanks between its parts change. A text that is no JSON stays as it is.
pub(super) fn indented(json: &str) -> String {
    if serde_json::from_str::<serde::de::IgnoredAny>(json).is_err() {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut chars = json.chars().filter(|c| *c >= ' ').peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str("  "));
    };
    while let Some(c) = chars.next() {
        match c {
            ' ' => {}
            '"' => {
                out.push('"');
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if_eq(&' ').is_some() {}
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    out
}

/// A body as a text that may be edited; or why it may not.
pub(super) fn editable(body: &[u8]) -> Result<String, String> {
    if body.len() > EDITED_BYTES_MAX {
        return Err("it is too large for a browser: see `sagabus held edit`".into());
    }
    match std::str::from_utf8(body) {
        Ok(body) => Ok(indented(body)),
        Err(_) => Err("it is no text: see `sagabus held edit --body-file`".into()),
    }
}

/// A body as a text to read.
pub(super) fn shown(body: &[u8]) -> String {
    match editable(body) {
        Ok(body) => body.lines().map(text::plain).collect::<Vec<_>>().join("\n"),
        Err(_) => {
            let start = String::from_utf8_lossy(&body[..body.len().min(4096)]);
            format!("{} bytes, which begin with: {}", body.len(), text::plain(&start))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_and_nothing_else() {
        let body = "{\"a\":[1.00,{ },[ ]] ,\n\t\"b,{\\\"\":{\"c\":12345678901234567890123.0}, \"d\":\"x  y\"}";
        let shown = indented(body);
        let expected = "{\n  \"a\": [\n    1.00,\n    {},\n    []\n  ],\n  \"b,{\\\"\": {\n    \
                        \"c\": 12345678901234567890123.0\n  },\n  \"d\": \"x  y\"\n}";
        assert_eq!(shown, expected);
        assert_eq!(indented(&shown), shown);
        assert_eq!(indented("no { json"), "no { json");
    }

    #[test]
    fn what_a_browser_cannot_edit_is_said() {
        assert!(editable(&[0xff]).is_err());
        assert!(editable(&vec![b' '; EDITED_BYTES_MAX + 1]).is_err());
        assert_eq!(shown(&[0xff, b'a']), "2 bytes, which begin with: \u{fffd}a");
    }
}
