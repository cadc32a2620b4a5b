//! The names that the legacy service uses where WIT has kebab-case.
//!
//! Values are positions (a record is its fields in order), so a service's own spelling is nothing but another type of the same
//! shape: [`Naming::rename`] makes it once, and the JSON of that type has the service's names in both directions.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use portcullis_value::{Enum, Flags, Record, ResultType, Type, Variant};

/// How the words of a WIT name are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// `customer-id`, as in the WIT
    Wit,
    /// `customer_id`
    Snake,
    /// `customerId`
    Camel,
    /// `CustomerId`
    Pascal,
    /// `CUSTOMER_ID`
    ScreamingSnake,
}

impl Spelling {
    /// The words that name a spelling in the mapping file.
    pub(crate) const NAMES: [(&'static str, Self); 5] = [
        ("wit", Self::Wit),
        ("snake_case", Self::Snake),
        ("camelCase", Self::Camel),
        ("PascalCase", Self::Pascal),
        ("SCREAMING_SNAKE_CASE", Self::ScreamingSnake),
    ];

    /// Writes a WIT name in this spelling.
    pub(crate) fn spell(self, name: &str) -> String {
        match self {
            Self::Wit => name.to_owned(),
            Self::Snake => name.replace('-', "_").to_lowercase(),
            Self::ScreamingSnake => name.replace('-', "_").to_uppercase(),
            Self::Pascal => name.split('-').map(capitalized).collect(),
            Self::Camel => {
                let mut words = name.split('-');
                let first = words.next().map(str::to_lowercase).unwrap_or_default();
                words.fold(first, |spelled, word| spelled + &capitalized(word))
            }
        }
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters.flat_map(char::to_lowercase)).collect(),
        None => String::new(),
    }
}

/// The names in force for one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Naming {
    pub(crate) fields: Spelling,
    pub(crate) cases: Spelling,
    /// WIT name to the service's name: wins over both spellings.
    pub(crate) renamed: BTreeMap<String, String>,
}

impl Default for Naming {
    fn default() -> Self {
        Self { fields: Spelling::Wit, cases: Spelling::Wit, renamed: BTreeMap::new() }
    }
}

impl Naming {
    /// The service's name of a parameter or record field.
    pub(crate) fn field(&self, name: &str) -> String {
        self.renamed.get(name).cloned().unwrap_or_else(|| self.fields.spell(name))
    }

    fn case(&self, name: &str) -> String {
        self.renamed.get(name).cloned().unwrap_or_else(|| self.cases.spell(name))
    }

    fn changes_nothing(&self) -> bool {
        self.fields == Spelling::Wit && self.cases == Spelling::Wit && self.renamed.is_empty()
    }

    /// The same type with the service's names.
    ///
    /// # Errors
    ///
    /// The service's name that two parts of one type would share.
    pub(crate) fn rename(&self, ty: &Type) -> Result<Type, String> {
        if self.changes_nothing() {
            return Ok(ty.clone());
        }
        Ok(match ty {
            Type::Bool
            | Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::S8
            | Type::S16
            | Type::S32
            | Type::S64
            | Type::F32
            | Type::F64
            | Type::Char
            | Type::String
            | Type::Bytes => ty.clone(),
            Type::List(element) => Type::List(Arc::new(self.rename(element)?)),
            Type::Option(payload) => Type::Option(Arc::new(self.rename(payload)?)),
            Type::Tuple(types) => Type::Tuple(types.iter().map(|ty| self.rename(ty)).collect::<Result<_, _>>()?),
            Type::Record(record) => Type::Record(Arc::new(self.rename_record(record)?)),
            Type::Variant(variant) => Type::Variant(Arc::new(self.rename_variant(variant)?)),
            Type::Enum(cases) => Type::Enum(Arc::new(Enum { cases: self.rename_cases(&cases.cases)? })),
            Type::Flags(flags) => Type::Flags(Arc::new(Flags { names: self.rename_cases(&flags.names)? })),
            Type::Result(result) => Type::Result(Arc::new(ResultType {
                ok: self.rename_payload(result.ok.as_ref())?,
                err: self.rename_payload(result.err.as_ref())?,
            })),
        })
    }

    fn rename_record(&self, record: &Record) -> Result<Record, String> {
        let fields: Vec<(String, Type)> = record
            .fields
            .iter()
            .map(|(name, ty)| Ok((self.field(name), self.rename(ty)?)))
            .collect::<Result<_, String>>()?;
        distinct(fields.iter().map(|(name, _)| name))?;
        Ok(Record { fields })
    }

    fn rename_variant(&self, variant: &Variant) -> Result<Variant, String> {
        let cases: Vec<(String, Option<Type>)> = variant
            .cases
            .iter()
            .map(|(name, payload)| Ok((self.case(name), self.rename_payload(payload.as_ref())?)))
            .collect::<Result<_, String>>()?;
        distinct(cases.iter().map(|(name, _)| name))?;
        Ok(Variant { cases })
    }

    fn rename_cases(&self, names: &[String]) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|name| self.case(name)).collect();
        distinct(names.iter())?;
        Ok(names)
    }

    fn rename_payload(&self, payload: Option<&Type>) -> Result<Option<Type>, String> {
        payload.map(|ty| self.rename(ty)).transpose()
    }
}

fn distinct<'n>(names: impl Iterator<Item = &'n String>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(name.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_writes_the_words_of_a_wit_name() {
        let spelled: Vec<String> =
            Spelling::NAMES.iter().map(|(_, spelling)| spelling.spell("customer-HTTP-id")).collect();
        assert_eq!(
            spelled,
            ["customer-HTTP-id", "customer_http_id", "customerHttpId", "CustomerHttpId", "CUSTOMER_HTTP_ID"]
        );
    }

    #[test]
    fn a_type_is_renamed_down_to_its_leaves() {
        let naming = Naming {
            fields: Spelling::Snake,
            cases: Spelling::ScreamingSnake,
            renamed: BTreeMap::from([("due-at".to_owned(), "DueOn".to_owned())]),
        };
        let wit = Type::record([
            ("line-items", Type::list(Type::record([("unit-price", Type::U32)]))),
            ("due-at", Type::option(Type::String)),
            ("state", Type::enumeration(["past-due"])),
            ("last-event", Type::result(None, Some(Type::variant([("card-lost", Some(Type::flags(["is-on"])))])))),
            ("a-pair", Type::tuple([Type::Bool, Type::enumeration(["one-two"])])),
        ]);
        let renamed = Type::record([
            ("line_items", Type::list(Type::record([("unit_price", Type::U32)]))),
            ("DueOn", Type::option(Type::String)),
            ("state", Type::enumeration(["PAST_DUE"])),
            ("last_event", Type::result(None, Some(Type::variant([("CARD_LOST", Some(Type::flags(["IS_ON"])))])))),
            ("a_pair", Type::tuple([Type::Bool, Type::enumeration(["ONE_TWO"])])),
        ]);
        assert_eq!(naming.rename(&wit), Ok(renamed));
    }

    #[test]
    fn two_fields_cannot_share_a_name() {
        let naming = Naming { renamed: BTreeMap::from([("a".to_owned(), "b".to_owned())]), ..Naming::default() };
        assert_eq!(naming.rename(&Type::record([("a", Type::U8), ("b", Type::U8)])), Err("b".to_owned()));
    }
}
