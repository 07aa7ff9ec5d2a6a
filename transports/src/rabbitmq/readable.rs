//! Whether lapin can read a content header. It cannot read a property or a header's name that is not UTF-8 (the
//! connection ends), nor headers that are nested thousands of levels deep (its thread overflows its stack, and the
//! process aborts). What it cannot read is replaced by a header that says so, with the original bytes.

/// The deepest nesting of tables and arrays within the headers' table. Real headers never come near it, and recursive
/// code is safe with it.
pub(super) const DEPTH_MAX: usize = 32;
/// The header that says why the properties could not be read.
pub(super) const UNREADABLE: &str = "sagabus-unreadable";
/// The header with the original properties, in hexadecimal digits.
pub(super) const ORIGINAL: &str = "sagabus-unreadable-properties";
/// Bytes of the original properties that are kept.
const ORIGINAL_BYTES_MAX: usize = 2048;
/// The size of frame that every broker and client must accept.
const FRAME_BYTES_MIN: usize = 4096;
/// Class, weight and body size, which stand before the properties.
const BEFORE_PROPERTIES: usize = 12;

/// The properties of a message in their order on the wire, with what AMQP writes for each.
const PROPERTIES: [(&str, Kind); 14] = [
    ("content_type", Kind::ShortString),
    ("content_encoding", Kind::ShortString),
    ("headers", Kind::Table),
    ("delivery_mode", Kind::Fixed(1)),
    ("priority", Kind::Fixed(1)),
    ("correlation_id", Kind::ShortString),
    ("reply_to", Kind::ShortString),
    ("expiration", Kind::ShortString),
    ("message_id", Kind::ShortString),
    ("timestamp", Kind::Fixed(8)),
    ("type", Kind::ShortString),
    ("user_id", Kind::ShortString),
    ("app_id", Kind::ShortString),
    ("cluster_id", Kind::ShortString),
];
const HEADERS: usize = 2;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    ShortString,
    Table,
    Fixed(usize),
}

/// The payload of a content header frame to replace this one, if lapin cannot read it.
pub(super) fn replacement(payload: &[u8]) -> Option<Vec<u8>> {
    let mut fault = None;
    let walked = walk(payload, |index, value| {
        if fault.is_none() {
            fault = fault_of(index, value);
        }
    });
    let fault = fault.or(walked.err())?;
    Some(rewritten(payload, &fault))
}

/// Calls `each` with the number and the bytes of every property (without length), as far as properties can be told
/// apart.
fn walk<'a>(payload: &'a [u8], mut each: impl FnMut(usize, &'a [u8])) -> Result<(), String> {
    let mut rest = Reader { bytes: payload };
    rest.take(BEFORE_PROPERTIES)?;
    let flags = rest.u16()?;
    for (index, (_, kind)) in PROPERTIES.iter().enumerate().filter(|(index, _)| flags & (1 << (15 - index)) != 0) {
        let length = match kind {
            Kind::ShortString => rest.u8()?.into(),
            Kind::Table => rest.u32()? as usize,
            Kind::Fixed(length) => *length,
        };
        each(index, rest.take(length)?);
    }
    if rest.bytes.is_empty() { Ok(()) } else { Err("there are bytes behind the last property".into()) }
}

fn fault_of(index: usize, value: &[u8]) -> Option<String> {
    let (name, kind) = PROPERTIES[index];
    match kind {
        Kind::ShortString => std::str::from_utf8(value).err().map(|_| format!("property `{name}` is not UTF-8")),
        Kind::Table => table(value).err(),
        Kind::Fixed(_) => None,
    }
}

/// Reads a table to its end, without recursion.
fn table(bytes: &[u8]) -> Result<(), String> {
    // the nested values around the present one: where each ends, and whether its values have names
    let mut open = [(0, false); DEPTH_MAX + 1];
    open[0] = (bytes.len(), true);
    let mut depth = 0;
    let mut rest = Reader { bytes };
    loop {
        let (end, named) = open[depth];
        let at = bytes.len() - rest.bytes.len();
        if at >= end {
            if at > end {
                return Err("a header is longer than the table or array that it stands in".into());
            }
            if depth == 0 {
                return Ok(());
            }
            depth -= 1;
            continue;
        }
        if named {
            let length = rest.u8()?.into();
            std::str::from_utf8(rest.take(length)?).map_err(|_| "the name of a header is not UTF-8".to_owned())?;
        }
        let length = match rest.u8()? {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            b'S' | b'x' => rest.u32()? as usize,
            kind @ (b'F' | b'A') => {
                let length = rest.u32()? as usize;
                depth += 1;
                let inner = open.get_mut(depth).ok_or_else(|| format!("headers are nested deeper than {DEPTH_MAX}"))?;
                *inner = (bytes.len() - rest.bytes.len() + length, kind == b'F');
                if inner.0 > end {
                    return Err("a header is longer than the table or array that it stands in".into());
                }
                continue;
            }
            unknown => return Err(format!("a header has the unknown type `{}`", [unknown].escape_ascii())),
        };
        rest.take(length)?;
    }
}

/// The same header frame with everything readable, and why the rest is not.
fn rewritten(payload: &[u8], fault: &str) -> Vec<u8> {
    let original = &payload[payload.len().min(BEFORE_PROPERTIES)..];
    let hex: String = original.iter().take(ORIGINAL_BYTES_MAX).map(|byte| format!("{byte:02x}")).collect();
    let room = payload.len().max(FRAME_BYTES_MIN - 8);
    let tries = [(hex.as_str(), true), ("", true), (&hex[..hex.len().min(1024)], false)];
    let made = tries.map(|(hex, keep_headers)| write(payload, fault, hex, keep_headers));
    let fits = made.iter().position(|made| made.len() <= room).unwrap_or(tries.len() - 1);
    let [whole, without_hex, without_headers] = made;
    [whole, without_hex, without_headers].into_iter().nth(fits).unwrap_or_default()
}

fn write(payload: &[u8], fault: &str, hex: &str, keep_headers: bool) -> Vec<u8> {
    let mut values: [Option<Vec<u8>>; PROPERTIES.len()] = Default::default();
    let _ = walk(payload, |index, value| {
        let (_, kind) = PROPERTIES[index];
        values[index] = match (kind, fault_of(index, value)) {
            (_, None) => Some(value.to_vec()),
            // different bytes must stay different: each byte that is not text is written as `\x..`
            (Kind::ShortString, Some(_)) => {
                Some(value.escape_ascii().to_string().into_bytes()).filter(|escaped| escaped.len() <= 255)
            }
            _ => None,
        };
    }); // what cannot be told apart is missing
    let mut headers = Vec::new();
    for (name, text) in [(UNREADABLE, fault), (ORIGINAL, hex)].into_iter().filter(|(_, text)| !text.is_empty()) {
        headers.push(name.len() as u8);
        headers.extend_from_slice(name.as_bytes());
        headers.push(b'S');
        headers.extend_from_slice(&(text.len() as u32).to_be_bytes());
        headers.extend_from_slice(text.as_bytes());
    }
    if keep_headers {
        headers.extend(values[HEADERS].take().unwrap_or_default());
    }
    values[HEADERS] = Some(headers);

    let mut made = payload[..payload.len().min(BEFORE_PROPERTIES)].to_vec();
    made.resize(BEFORE_PROPERTIES, 0);
    let present = values.iter().enumerate().filter(|(_, value)| value.is_some());
    let flags = present.fold(0, |flags, (index, _)| flags | (1u16 << (15 - index)));
    made.extend_from_slice(&flags.to_be_bytes());
    for ((_, kind), value) in PROPERTIES.iter().zip(values) {
        let Some(value) = value else { continue };
        match kind {
            Kind::ShortString => made.push(value.len() as u8),
            Kind::Table => made.extend_from_slice(&(value.len() as u32).to_be_bytes()),
            Kind::Fixed(_) => {}
        }
        made.extend(value);
    }
    made
}

/// Makes the short strings of a method that carries foreign text (a routing key, a cut error text) valid UTF-8: other
/// bytes become `?`. Lengths stay the same, so this is done in place.
pub(super) fn clean_method(payload: &mut [u8]) {
    let Some((class_and_method, arguments)) = payload.split_first_chunk_mut::<4>() else { return };
    // `None` is a short string, `Some(n)` are n bytes of something else
    let layout: &[Option<usize>] = match *class_and_method {
        [0, 60, 0, 60] => &[None, Some(9), None, None], // basic.deliver: tag, number and flag, exchange, routing key
        [0, 60, 0, 50] => &[Some(2), None, None, None], // basic.return: code, text, exchange, routing key
        [0, 10, 0, 50] | [0, 20, 0, 40] => &[Some(2), None], // connection.close, channel.close: code, text
        [0, 10, 0, 60] => &[None],                      // connection.blocked: reason
        _ => return,
    };
    let mut at = 0;
    for part in layout {
        let Some(length) = part.or_else(|| arguments.get(at).map(|length| usize::from(*length))) else { return };
        if part.is_none() {
            at += 1;
            let Some(text) = arguments.get_mut(at..at + length) else { return };
            clean(text);
        }
        at += length;
    }
}

fn clean(text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let from = error.valid_up_to();
        let until = error.error_len().map_or(text.len(), |length| from + length);
        text[from..until].fill(b'?');
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or("the properties are cut short")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::wire, *};
    use lapin::{BasicProperties, types::AMQPValue};

    /// A content header of a body of 7 bytes with these properties, as on the wire.
    fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        payload.extend_from_slice(&flags.to_be_bytes());
        payload.extend_from_slice(properties);
        payload
    }

    fn parsed(payload: &[u8]) -> BasicProperties {
        let (rest, properties) = lapin::protocol::basic::parse_properties(&payload[BEFORE_PROPERTIES..]).unwrap();
        assert!(rest.is_empty(), "{rest:?}");
        properties
    }

    fn text(properties: &BasicProperties, name: &str) -> Option<String> {
        match properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            _ => None,
        }
    }

    fn nested(depth: usize) -> Vec<u8> {
        let mut value = Vec::new();
        for _ in 0..depth {
            let mut outer = vec![1, b'a', b'F'];
            outer.extend_from_slice(&(value.len() as u32).to_be_bytes());
            outer.extend(value);
            value = outer;
        }
        let mut table = (value.len() as u32).to_be_bytes().to_vec();
        table.extend(value);
        table
    }

    #[test]
    fn fuzz_content_header() {
        let nested = |depth| header(1 << 13, &nested(depth));
        let mut many = b"\x10application/json".to_vec(); // content_type, headers, message_id, type
        many.extend_from_slice(b"\0\0\0\x16\x04sagaS\0\0\0\x01s\x07enteredb\x05");
        many.extend_from_slice(b"\x03m-1\x04test");
        let samples = [header(1 << 15 | 1 << 13 | 1 << 7 | 1 << 5, &many), nested(2), nested(DEPTH_MAX), nested(200)];
        fuzz::each(&samples.each_ref().map(|sample| &**sample), |input| {
            // what stands before the properties is the broker's
            let mut payload = header(0, b"")[..BEFORE_PROPERTIES].to_vec();
            payload.extend_from_slice(input.get(BEFORE_PROPERTIES..).unwrap_or_default());
            let payload = replacement(&payload).unwrap_or(payload);
            let read = lapin::protocol::basic::parse_properties(&payload[BEFORE_PROPERTIES..]);
            let (_, properties) = read.unwrap_or_else(|error| panic!("lapin cannot read {payload:?}: {error:?}"));
            let (envelope, fault) = wire::envelope(&properties, "{}".into(), false);
            assert!(!envelope.message_id.is_empty(), "it is held by its id");
            let Ok(again) = wire::properties(&envelope, 0) else { return };
            let (again, _) = wire::envelope(&again, "{}".into(), false);
            assert!(fault.is_some() || again == envelope, "{again:?} came of {envelope:?}");
        });
    }

    #[test]
    fn fuzz_method() {
        let deliver: &[u8] = b"\0\x3c\0\x3c\x03tag\0\0\0\0\0\0\0\x01\0\x08exchange\x03key";
        let returned = b"\0\x3c\0\x32\x01\x38\x08NO_ROUTE\x08exchange\x03key";
        fuzz::each(&[deliver, returned, b"\0\x0a\0\x32\x01\x40\x04text\0\0\0\0"], |input| {
            let mut cleaned = input.to_vec();
            clean_method(&mut cleaned);
            assert_eq!(cleaned.len(), input.len(), "lengths stay the same");
            let once = cleaned.clone();
            clean_method(&mut cleaned);
            assert_eq!(cleaned, once, "it is clean");
        });
    }

    #[test]
    fn what_lapin_reads_is_left_alone() {
        let plain = header(1 << 7, b"\x03m-1");
        assert_eq!((parsed(&plain).message_id().as_ref().unwrap().as_str(), replacement(&plain)), ("m-1", None));
        assert_eq!(replacement(&header(0, b"")), None);
        let deepest = header(1 << 13, &nested(DEPTH_MAX));
        parsed(&deepest);
        assert_eq!(replacement(&deepest), None);
        // every type, in an array and in a table
        let values: &[u8] = b"t\x01b\x01B\x01s\0\x01U\0\x01u\0\x01I\0\0\0\x01i\0\0\0\x01f\0\0\0\0d\0\0\0\0\0\0\0\0\
            D\x01\0\0\0\x01L\0\0\0\0\0\0\0\x01l\0\0\0\0\0\0\0\x01T\0\0\0\0\0\0\0\x01S\0\0\0\x01\xffx\0\0\0\x01\xffV";
        let mut array = vec![1, b'n', b'A'];
        array.extend_from_slice(&(values.len() as u32).to_be_bytes());
        array.extend_from_slice(values);
        let mut table = (array.len() as u32).to_be_bytes().to_vec();
        table.extend(array);
        let all = header(1 << 13, &table);
        parsed(&all);
        assert_eq!(replacement(&all), None);
    }

    #[test]
    fn a_property_that_is_no_text_is_named_and_what_else_was_there_stays() {
        let payload = header((1 << 13) | (1 << 7) | (1 << 3), b"\0\0\0\x07\x01hS\0\0\0\0\x03m-1\x05B\xfcro\\");
        let made = parsed(&replacement(&payload).expect("lapin cannot read it"));
        assert_eq!(text(&made, UNREADABLE).as_deref(), Some("property `app_id` is not UTF-8"));
        assert!(text(&made, ORIGINAL).unwrap().ends_with("0542fc726f5c"), "the bytes are kept");
        assert_eq!(text(&made, "h").as_deref(), Some(""), "the user's headers stay");
        assert_eq!(made.message_id().as_ref().unwrap().as_str(), "m-1");
        assert_eq!(made.app_id().as_ref().unwrap().as_str(), r"B\xfcro\\");
    }

    #[test]
    fn headers_that_cannot_be_read_are_refused_with_the_reason() {
        let reason = |properties: &[u8]| {
            let payload = header((1 << 13) | (1 << 7), &[properties, b"\x03m-1"].concat());
            let made = replacement(&payload).map(|made| parsed(&made))?;
            assert!(made.message_id().is_none() || made.message_id().as_ref().unwrap().as_str() == "m-1");
            text(&made, UNREADABLE)
        };
        assert_eq!(reason(&nested(33)).as_deref(), Some("headers are nested deeper than 32"));
        assert_eq!(reason(&nested(5_000)).as_deref(), Some("headers are nested deeper than 32"));
        assert_eq!(reason(b"\0\0\0\x03\x01\xffV").as_deref(), Some("the name of a header is not UTF-8"));
        assert_eq!(reason(b"\0\0\0\x03\x01aZ").as_deref(), Some("a header has the unknown type `Z`"));
        assert_eq!(reason(b"\xff\xff\xff\xff").as_deref(), Some("the properties are cut short"));
        let longer = b"\0\0\0\x07\x01aS\0\0\0\x09";
        assert_eq!(reason(longer).as_deref(), Some("the properties are cut short"));
        let outside = b"\0\0\0\x0e\x01aF\0\0\0\x03\x01bI\0\0\0\0";
        assert_eq!(reason(outside).as_deref(), Some("a header is longer than the table or array that it stands in"));
        for cut in 0..14 {
            parsed(&replacement(&header(1 << 13, b"")[..cut]).expect("it is cut short"));
        }
    }

    #[test]
    fn a_replacement_is_no_larger_than_what_any_frame_may_be() {
        let value = vec![b'v'; 100_000];
        let entry = [b"\x01hS".as_slice(), &(value.len() as u32).to_be_bytes(), &value].concat();
        let table = [(entry.len() as u32).to_be_bytes().as_slice(), &entry].concat();
        for properties in [[table.as_slice(), b"\x01\xff"].concat(), b"\0\0\0\0\x01\xff".to_vec()] {
            let payload = header((1 << 13) | (1 << 3), &properties);
            let made = replacement(&payload).expect("lapin cannot read it");
            assert!(made.len() <= payload.len().max(4088), "{} of {}", made.len(), payload.len());
            assert!(text(&parsed(&made), UNREADABLE).is_some());
        }
    }

    #[test]
    fn the_text_of_a_method_becomes_utf8_in_place() {
        let mut deliver = b"\0\x3c\0\x3c\x01t\0\0\0\0\0\0\0\x01\0\x02ex\x04k\xff\xe2\x82".to_vec();
        clean_method(&mut deliver);
        assert_eq!(deliver, b"\0\x3c\0\x3c\x01t\0\0\0\0\0\0\0\x01\0\x02ex\x04k???");
        let mut cut = b"\0\x14\0\x28\x01\x93\x09k".to_vec();
        clean_method(&mut cut);
        assert_eq!(cut, b"\0\x14\0\x28\x01\x93\x09k", "what is cut short is lapin's to refuse");
    }
}
