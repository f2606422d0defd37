//! What a SHOW table is: named, typed columns, each with the function that reads its cell from a row.
//!
//! A table is a const; the `table!` macro keeps a column on one line. RowDescription, DataRow and the
//! tests follow from it. Cells are written straight into the reply, in text format.

use std::io::Write;
use std::sync::Arc;

use crate::encode::{self, message, string, with_len};

/// The type a column announces to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `text`.
    Text,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `numeric`, which PgBouncer uses for its 64-bit counters.
    Numeric,
    /// `bytea`.
    Bytea,
}

impl ColumnType {
    /// The OID in PostgreSQL's catalogue.
    pub const fn oid(self) -> u32 {
        match self {
            Self::Text => 25,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::Numeric => 1700,
            Self::Bytea => 17,
        }
    }

    /// The size in RowDescription; -1 is a variable one.
    pub const fn size(self) -> i16 {
        match self {
            Self::Int4 => 4,
            Self::Int8 => 8,
            Self::Text | Self::Numeric | Self::Bytea => -1,
        }
    }
}

/// PostgreSQL's name of the type.
impl std::fmt::Display for ColumnType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Numeric => "numeric",
            Self::Bytea => "bytea",
        })
    }
}

/// One column of a table over rows `R`.
pub struct Column<R> {
    /// The name clients look for.
    pub name: &'static str,
    /// The announced type.
    pub kind: ColumnType,
    /// Writes this column's cell of a row.
    pub cell: fn(&R, CellWriter<'_>),
}

/// The answer to one SHOW command over rows `R`.
pub struct Table<R: 'static> {
    /// The word after SHOW.
    pub name: &'static str,
    /// The columns, in PgBouncer's order: some monitors read by position.
    pub columns: &'static [Column<R>],
}

impl<R> Table<R> {
    /// Appends a whole answer: description, rows, `SHOW`, ReadyForQuery.
    pub fn write_reply<'r>(&self, rows: impl IntoIterator<Item = &'r R>, out: &mut Vec<u8>) {
        self.write_description(out);
        for row in rows {
            self.write_row(row, out);
        }
        Self::write_end(out);
    }

    /// Appends a whole answer without the columns whose names say so.
    pub fn write_reply_without<'r>(
        &self,
        left_out: impl Fn(&str) -> bool,
        rows: impl IntoIterator<Item = &'r R>,
        out: &mut Vec<u8>,
    ) {
        let columns = self.columns.iter();
        let columns: Vec<_> = columns.filter(|column| !left_out(column.name)).collect();
        description(columns.iter().copied(), out);
        for row in rows {
            data_row(columns.iter().copied(), row, out);
        }
        Self::write_end(out);
    }

    /// Appends RowDescription.
    pub fn write_description(&self, out: &mut Vec<u8>) {
        description(self.columns.iter(), out);
    }

    /// Appends one DataRow.
    pub fn write_row(&self, row: &R, out: &mut Vec<u8>) {
        data_row(self.columns.iter(), row, out);
    }

    /// Appends what follows the last row.
    pub fn write_end(out: &mut Vec<u8>) {
        encode::command_complete(out, "SHOW");
        encode::ready_for_query(out);
    }
}

fn description<'c, R: 'c>(
    columns: impl ExactSizeIterator<Item = &'c Column<R>>,
    out: &mut Vec<u8>,
) {
    message(out, b'T', |body| {
        push_count(body, columns.len());
        for column in columns {
            string(body, column.name);
            body.extend_from_slice(&[0; 6]); // table OID and attribute: a column of no table
            body.extend_from_slice(&column.kind.oid().to_be_bytes());
            body.extend_from_slice(&column.kind.size().to_be_bytes());
            body.extend_from_slice(&(-1i32).to_be_bytes()); // no type modifier
            body.extend_from_slice(&[0; 2]); // text format
        }
    });
}

fn data_row<'c, R: 'c>(
    columns: impl ExactSizeIterator<Item = &'c Column<R>>,
    row: &R,
    out: &mut Vec<u8>,
) {
    message(out, b'D', |body| {
        push_count(body, columns.len());
        for column in columns {
            let start = body.len();
            (column.cell)(row, CellWriter { out: body });
            debug_assert!(body.len() >= start + 4, "{} wrote no cell", column.name);
        }
    });
}

/// Takes the one value of a cell; using it up is what makes a cell have exactly one.
pub struct CellWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl CellWriter<'_> {
    /// Writes NULL.
    pub fn null(self) {
        self.out.extend_from_slice(&(-1i32).to_be_bytes());
    }

    /// Writes text.
    pub fn text(self, text: &str) {
        with_len(self.out, 0, |out| out.extend_from_slice(text.as_bytes()));
    }

    /// Writes what a format string makes, without a String in between.
    pub fn format(self, arguments: std::fmt::Arguments<'_>) {
        with_len(self.out, 0, |out| {
            out.write_fmt(arguments)
                .expect("writing to a Vec does not fail");
        });
    }
}

/// A value that can stand in a cell.
pub trait Cell {
    /// Writes this value, NULL included.
    fn write(&self, cell: CellWriter<'_>);
}

impl Cell for str {
    fn write(&self, cell: CellWriter<'_>) {
        cell.text(self);
    }
}

impl Cell for String {
    fn write(&self, cell: CellWriter<'_>) {
        cell.text(self);
    }
}

impl Cell for Arc<str> {
    fn write(&self, cell: CellWriter<'_>) {
        cell.text(self);
    }
}

impl<T: Cell + ?Sized> Cell for &T {
    fn write(&self, cell: CellWriter<'_>) {
        (**self).write(cell);
    }
}

impl<T: Cell> Cell for Option<T> {
    fn write(&self, cell: CellWriter<'_>) {
        match self {
            Some(value) => value.write(cell),
            None => cell.null(),
        }
    }
}

macro_rules! integer_cells {
    ($($integer:ty)+) => {$(
        impl Cell for $integer {
            fn write(&self, cell: CellWriter<'_>) {
                cell.format(format_args!("{self}"));
            }
        }
    )+};
}
integer_cells!(i32 u32 i64 u64);

/// PgBouncer shows yes and no in int4 columns as 1 and 0.
impl Cell for bool {
    fn write(&self, cell: CellWriter<'_>) {
        cell.text(if *self { "1" } else { "0" });
    }
}

/// Bytes in `bytea`'s hex form.
impl<const N: usize> Cell for [u8; N] {
    fn write(&self, cell: CellWriter<'_>) {
        with_len(cell.out, 0, |out| {
            out.extend_from_slice(b"\\x");
            for byte in self {
                write!(out, "{byte:02x}").expect("writing to a Vec does not fail");
            }
        });
    }
}

/// Yes or no as the words PgBouncer uses in text columns.
pub(crate) struct YesNo(pub(crate) bool);

impl Cell for YesNo {
    fn write(&self, cell: CellWriter<'_>) {
        cell.text(if self.0 { "yes" } else { "no" });
    }
}

/// A number in an int4 column, held within int4: a client that parses the announced type must not
/// fail on the whole row because one number grew large.
pub(crate) struct Int4(i32);

pub(crate) fn int4(number: impl TryInto<i64>) -> Int4 {
    let number = number.try_into().unwrap_or(i64::MAX);
    Int4(i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX }))
}

impl Cell for Int4 {
    fn write(&self, cell: CellWriter<'_>) {
        self.0.write(cell);
    }
}

/// A number in a text column, nine places wide, or an empty text.
pub(crate) struct Padded(pub(crate) Option<u32>);

impl Cell for Padded {
    fn write(&self, cell: CellWriter<'_>) {
        match self.0 {
            Some(number) => cell.format(format_args!("{number:9}")),
            None => cell.text(""),
        }
    }
}

/// Seconds since 1970 as `YYYY-MM-DD hh:mm:ss UTC`.
///
/// PgBouncer prints its local zone; we always print UTC, whatever `TZ` says, so that the text means
/// the same on every host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub i64);

impl std::fmt::Display for UnixTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, second) = (self.0.div_euclid(86_400), self.0.rem_euclid(86_400));
        let (year, month, day) = civil_date(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}

impl Cell for UnixTime {
    fn write(&self, cell: CellWriter<'_>) {
        cell.format(format_args!("{self}"));
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
///
/// The count is shifted to years that begin in March, so that the leap day comes last and the lengths
/// of the months before it repeat every five: 31 30 31 30 31.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const DAYS_TO_1970: i64 = 719_468; // from 0000-03-01
    const DAYS_IN_ERA: i64 = 146_097; // 400 years, after which the calendar repeats
    let days = days.saturating_add(DAYS_TO_1970);
    let (era, day_of_era) = (days.div_euclid(DAYS_IN_ERA), days.rem_euclid(DAYS_IN_ERA));
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

fn push_count(body: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("a table is a const of a few dozen columns");
    body.extend_from_slice(&count.to_be_bytes());
}

/// Declares a table: `table!(pub NAME: Row, "word", |row| { "column" Type = value; ... })`.
macro_rules! table {
    (
        $(#[$meta:meta])* pub $const:ident: $row:ty, $word:literal,
        |$binding:ident| { $($name:literal $kind:ident = $value:expr;)+ }
    ) => {
        $(#[$meta])*
        pub const $const: $crate::Table<$row> = $crate::Table {
            name: $word,
            columns: &[$($crate::Column {
                name: $name,
                kind: $crate::ColumnType::$kind,
                cell: |$binding, cell| $crate::Cell::write(&$value, cell),
            }),+],
        };
    };
}
pub(crate) use table;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell(value: &(impl Cell + ?Sized)) -> String {
        let mut out = Vec::new();
        value.write(CellWriter { out: &mut out });
        let len = i32::from_be_bytes(out[..4].try_into().unwrap());
        assert_eq!(usize::try_from(len).unwrap(), out.len() - 4);
        String::from_utf8(out.split_off(4)).unwrap()
    }

    #[test]
    fn values_have_text_form() {
        assert_eq!(cell("bob"), "bob");
        assert_eq!(cell(&-1i64), "-1");
        assert_eq!(cell(&true), "1");
        assert_eq!(cell(&YesNo(false)), "no");
        assert_eq!(cell(&[0u8, 0xab, 0xff]), "\\x00abff");
    }

    #[test]
    fn a_number_stays_within_its_column() {
        assert_eq!(cell(&int4(-1)), "-1");
        assert_eq!(cell(&int4(u64::MAX)), "2147483647");
        assert_eq!(cell(&int4(i64::MIN)), "-2147483648");
    }

    #[test]
    fn null_is_a_length_of_minus_one() {
        let mut out = Vec::new();
        None::<String>.write(CellWriter { out: &mut out });
        assert_eq!(out, [0xff; 4]);
    }

    #[test]
    fn times_are_printed_in_utc() {
        assert_eq!(cell(&UnixTime(0)), "1970-01-01 00:00:00 UTC");
        assert_eq!(cell(&UnixTime(-1)), "1969-12-31 23:59:59 UTC");
        assert_eq!(cell(&UnixTime(951_782_400)), "2000-02-29 00:00:00 UTC");
        assert_eq!(cell(&UnixTime(1_795_244_481)), "2026-11-21 07:01:21 UTC");
        assert_eq!(cell(&UnixTime(4_107_542_399)), "2100-02-28 23:59:59 UTC");
        assert_eq!(cell(&UnixTime(4_107_542_400)), "2100-03-01 00:00:00 UTC");
    }

    proptest! {
        #[test]
        fn the_next_day_is_the_next_date(day in -800_000..3_000_000i64) {
            let (year, month, date) = civil_date(day);
            let next = civil_date(day + 1);
            let month_end = next == (year, month + 1, 1) || next == (year + 1, 1, 1) && month == 12;
            prop_assert!(next == (year, month, date + 1) || month_end && (28..=31).contains(&date));
        }

        #[test]
        fn any_time_can_be_printed(seconds in any::<i64>()) {
            prop_assert!(cell(&UnixTime(seconds)).ends_with(" UTC"));
        }
    }
}
