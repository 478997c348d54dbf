//! A reply as a table: a map has the columns key and value, an array of arrays
//! or maps a row each, any other array its numbered values.

use base::Frame;

use crate::Format;
use crate::json;
use crate::print::{one_line, print, visible};

/// The reply as a table, or as a line when it is a scalar.
pub(crate) fn draw(frame: &Frame) -> String {
    match frame {
        Frame::Map(pairs) | Frame::Attribute(pairs) if !pairs.is_empty() => {
            let rows = pairs.iter().map(|(key, value)| vec![cell(key), cell(value)]);
            lines(&["key".to_owned(), "value".to_owned()], &rows.collect::<Vec<_>>())
        }
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) if !items.is_empty() => {
            records(items).or_else(|| tuples(items)).unwrap_or_else(|| numbered(items))
        }
        Frame::Array(_) | Frame::Set(_) | Frame::Push(_) | Frame::Map(_) | Frame::Attribute(_) => {
            "(empty)\n".to_owned()
        }
        Frame::Verbatim(..) => String::from_utf8_lossy(&print(frame, Format::Raw)).into_owned(),
        scalar => format!("{}\n", cell(scalar)),
    }
}

/// Maps with the same keys: a column a key.
fn records(items: &[Frame]) -> Option<String> {
    let keys = |frame: &Frame| match frame {
        Frame::Map(pairs) => Some(pairs.iter().map(|(key, _)| cell(key)).collect::<Vec<_>>()),
        _ => None,
    };
    let head = keys(&items[0]).filter(|head| !head.is_empty())?;
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let Frame::Map(pairs) = item else { return None };
        if keys(item)? != head {
            return None;
        }
        rows.push(pairs.iter().map(|(_, value)| cell(value)).collect());
    }
    Some(lines(&head, &rows))
}

/// Arrays of the same length: a column a place.
fn tuples(items: &[Frame]) -> Option<String> {
    let mut rows: Vec<Vec<String>> = Vec::with_capacity(items.len());
    for item in items {
        let Frame::Array(cells) = item else { return None };
        if cells.len() < 2 || rows.first().is_some_and(|first| first.len() != cells.len()) {
            return None;
        }
        rows.push(cells.iter().map(cell).collect());
    }
    let head: Vec<String> = (1..=rows[0].len()).map(|place| place.to_string()).collect();
    Some(lines(&head, &rows))
}

fn numbered(items: &[Frame]) -> String {
    let rows = items.iter().enumerate().map(|(i, item)| vec![(i + 1).to_string(), cell(item)]);
    lines(&["#".to_owned(), "value".to_owned()], &rows.collect::<Vec<_>>())
}

/// A value on one line.
fn cell(frame: &Frame) -> String {
    match frame {
        Frame::Bulk(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => visible(text),
            Err(_) => one_line(frame),
        },
        Frame::Integer(_) | Frame::Double(_) | Frame::Boolean(_) | Frame::BigNumber(_) => {
            String::from_utf8_lossy(&print(frame, Format::Raw)).trim_end().to_owned()
        }
        Frame::Array(_) | Frame::Set(_) | Frame::Push(_) | Frame::Map(_) | Frame::Attribute(_) => {
            json::encode(frame)
        }
        Frame::Verbatim(_, text) => visible(text),
        scalar => one_line(scalar),
    }
}

fn lines(head: &[String], rows: &[Vec<String>]) -> String {
    let count = |text: &String| text.chars().count();
    let widths: Vec<usize> = (0..head.len())
        .map(|i| rows.iter().map(|row| count(&row[i])).chain([count(&head[i])]).max().unwrap_or(0))
        .collect();
    let rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect();
    let line = |cells: &[String]| -> String {
        let cells = cells.iter().zip(&widths).map(|(text, &width)| format!("| {text:width$} "));
        cells.chain(["|\n".to_owned()]).collect()
    };
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{rule}+\n{}{rule}+\n{body}{rule}+\n", line(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, i64)]) -> Frame {
        Frame::Map(pairs.iter().map(|&(k, v)| (Frame::bulk(k), Frame::Integer(v))).collect())
    }

    #[test]
    fn rows_that_are_alike_share_columns() {
        let records = Frame::Array(vec![map(&[("id", 1), ("n", 20)]), map(&[("id", 2), ("n", 3)])]);
        let expected = "\
+----+----+
| id | n  |
+----+----+
| 1  | 20 |
| 2  | 3  |
+----+----+
";
        assert_eq!(draw(&records), expected);
        let tuple = |a: &str, b: &str| Frame::Array(vec![Frame::bulk(a), Frame::bulk(b)]);
        let drawn = draw(&Frame::Array(vec![tuple("a", "1"), tuple("ü", "x\ny")]));
        assert!(drawn.contains("| ü | x\\ny |\n"), "{drawn}");
        let uneven = Frame::Array(vec![map(&[("a", 1)]), map(&[("b", 1)])]);
        assert!(draw(&uneven).contains("| 1 | {\"a\":1} |"), "{}", draw(&uneven));
        let mixed = Frame::Array(vec![tuple("a", "b"), Frame::Null]);
        assert!(draw(&mixed).contains("| 2 | (nil)     |"), "{}", draw(&mixed));
    }
}
