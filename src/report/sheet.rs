//! Writing CSV: whole tables through the `csv` crate, and the single field for files of millions
//! of rows.

/// A header line as it stands, then the rows.
pub(super) fn csv(header: &str, rows: impl IntoIterator<Item = Vec<String>>) -> Vec<u8> {
    let mut bytes = format!("{header}\n").into_bytes();
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(&mut bytes);
    for row in rows {
        writer.write_record(row).expect("rows are of one length, and writing to memory does not fail");
    }
    drop(writer);
    bytes
}

/// Adds one field, in quotes where RFC 4180 wants them.
pub(super) fn push_field(out: &mut Vec<u8>, field: &str) {
    if field.contains(['"', ',', '\n', '\r']) {
        out.push(b'"');
        out.extend_from_slice(field.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(field.as_bytes());
    }
}

/// Text from outside as a field that no spreadsheet takes for a formula: with an apostrophe before
/// what would begin one.
pub(super) fn inert(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if is_formula { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_reads_back_as_it_was() {
        for field in ["", "plain", "a,b", "say \"x\"", "two\nlines", "\"", "cr\r"] {
            let mut text = b"h,i\n1,".to_vec();
            push_field(&mut text, field);
            text.push(b'\n');
            let mut reader = csv::Reader::from_reader(text.as_slice());
            assert_eq!(&reader.records().next().unwrap().unwrap()[1], field);
        }
    }
}
