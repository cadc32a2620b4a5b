//! Which virtual component serves an import. Pure: offers in, a choice or the reason for none out.

use portcullis_identity::Target;

use crate::InterfaceName;

/// An interface that a virtual component of the lattice offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Who offers it.
    pub target: Target,
    /// What, in the callee's version.
    pub interface: InterfaceName,
}

impl std::fmt::Display for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` of `{}`", self.interface, self.target)
    }
}

/// Why an import has no callee.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Nobody offers it in a version that would do.
    #[error("nobody offers `{import}`; the lattice has {}", listed(offers, "nothing"))]
    Nobody {
        /// What the component imports.
        import: InterfaceName,
        /// Everything there is.
        offers: Vec<Offer>,
    },
    /// More than one would do, and none of them exactly.
    #[error(
        "`{import}` could be {} (hint: choose with --import '{import}=LATTICE/ID')",
        listed(candidates, "anything")
    )]
    Ambiguous {
        /// What the component imports.
        import: InterfaceName,
        /// Those that would do.
        candidates: Vec<Offer>,
    },
}

fn listed(offers: &[Offer], nothing: &str) -> String {
    if offers.is_empty() {
        return nothing.to_owned();
    }
    offers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Chooses the callee of an import: the one that offers exactly its version, else the one that offers a later compatible version. With
/// `chosen`, only that component counts.
///
/// # Errors
/// When there is none, or more than one.
pub fn resolve<'o>(
    import: &InterfaceName,
    offers: &'o [Offer],
    chosen: Option<&Target>,
) -> Result<&'o Offer, Unresolved> {
    let counts = |offer: &&Offer| chosen.is_none_or(|chosen| offer.target == *chosen);
    let exact: Vec<&Offer> = offers.iter().filter(counts).filter(|offer| offer.interface == *import).collect();
    let candidates = if exact.is_empty() {
        offers.iter().filter(counts).filter(|offer| offer.interface.satisfies(import)).collect()
    } else {
        exact
    };
    match candidates.as_slice() {
        [offer] => Ok(offer),
        [] => Err(Unresolved::Nobody { import: import.clone(), offers: offers.to_vec() }),
        [_, _, ..] => {
            let candidates = candidates.into_iter().cloned().collect();
            Err(Unresolved::Ambiguous { import: import.clone(), candidates })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(offers: &[(&str, &str)]) -> Vec<Offer> {
        let offer = |(target, interface): &(&str, &str)| Offer {
            target: target.parse().unwrap(),
            interface: interface.parse().unwrap(),
        };
        offers.iter().map(offer).collect()
    }

    fn resolved(import: &str, offered: &[(&str, &str)], chosen: Option<&str>) -> Result<String, String> {
        let offered = offers(offered);
        let chosen = chosen.map(|chosen| chosen.parse().unwrap());
        match resolve(&import.parse().unwrap(), &offered, chosen.as_ref()) {
            Ok(offer) => Ok(format!("{} {}", offer.target, offer.interface)),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_same_version_is_preferred_to_a_later_one() {
        let offered = [("l/new", "a:b/c@1.1.0"), ("l/same", "a:b/c@1.0.0"), ("l/other", "a:b/d@1.0.0")];
        assert_eq!(resolved("a:b/c@1.0.0", &offered, None), Ok("l/same a:b/c@1.0.0".to_owned()));
    }

    #[test]
    fn a_later_compatible_version_is_taken_where_it_is_the_only_one() {
        let offered = [("l/new", "a:b/c@1.1.0"), ("l/old", "a:b/c@0.9.0")];
        assert_eq!(resolved("a:b/c@1.0.0", &offered, None), Ok("l/new a:b/c@1.1.0".to_owned()));
    }

    #[test]
    fn two_candidates_are_an_error_that_lists_them_until_one_is_chosen() {
        for offered in
            [[("l/one", "a:b/c@1.0.0"), ("l/two", "a:b/c@1.0.0")], [("l/one", "a:b/c@1.1.0"), ("l/two", "a:b/c@1.2.0")]]
        {
            let error = resolved("a:b/c@1.0.0", &offered, None).unwrap_err();
            assert!(error.contains("of `l/one`") && error.contains("of `l/two`"), "{error}");
            assert!(resolved("a:b/c@1.0.0", &offered, Some("l/two")).unwrap().starts_with("l/two "));
        }
    }

    #[test]
    fn no_candidate_is_an_error_that_lists_what_there_is() {
        let error = resolved("a:b/c@2.0.0", &[("l/one", "a:b/c@1.0.0")], None).unwrap_err();
        assert_eq!(error, "nobody offers `a:b/c@2.0.0`; the lattice has `a:b/c@1.0.0` of `l/one`");
        let error = resolved("a:b/c@2.0.0", &[], None).unwrap_err();
        assert_eq!(error, "nobody offers `a:b/c@2.0.0`; the lattice has nothing");
        assert!(resolved("a:b/c@1.0.0", &[("l/one", "a:b/c@1.0.0")], Some("l/two")).is_err());
    }
}
