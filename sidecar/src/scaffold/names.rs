//! How the service spells its names, where WIT has kebab-case.

use std::collections::BTreeMap;

use super::ScaffoldError;
use super::infer::Endpoint;
use crate::http::Spelling;

/// WIT name to the service's name.
pub(super) type Renamed = BTreeMap<String, String>;

/// The spelling that explains most names, and the names that it does not explain.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) spelling: &'static str,
    /// For the whole file.
    pub(super) renamed: Renamed,
    /// For each endpoint: names that another endpoint spells otherwise.
    pub(super) by_endpoint: Vec<Renamed>,
}

impl Names {
    /// Finds the names of all endpoints.
    ///
    /// # Errors
    ///
    /// Two names of one endpoint that WIT could not tell apart.
    pub(super) fn find(endpoints: &[Endpoint]) -> Result<Self, ScaffoldError> {
        let each: Vec<Renamed> = endpoints.iter().map(names).collect::<Result<_, _>>()?;
        let explained = |spelling: Spelling| {
            let names = each.iter().flatten();
            names.filter(|(wit, json)| spelling.spell(wit) == **json).count()
        };
        let mut best = ("wit", Spelling::Wit, explained(Spelling::Wit));
        for (name, spelling) in Spelling::NAMES {
            let count = explained(spelling);
            if count > best.2 {
                best = (name, spelling, count);
            }
        }
        let (name, spelling, _) = best;
        let unexplained = |(wit, json): &(&String, &String)| spelling.spell(wit) != **json;
        let mut renamed = Renamed::new();
        for (wit, json) in each.iter().flatten().filter(unexplained) {
            renamed.entry(wit.clone()).or_insert_with(|| json.clone());
        }
        // What the file says for all routes must hold for each, or the route says otherwise.
        let in_force = |wit: &String| renamed.get(wit).cloned().unwrap_or_else(|| spelling.spell(wit));
        let by_endpoint = each.iter().map(|names| {
            let others = names.iter().filter(|(wit, json)| in_force(wit) != **json);
            others.map(|(wit, json)| (wit.clone(), json.clone())).collect()
        });
        Ok(Self { spelling: name, by_endpoint: by_endpoint.collect(), renamed: renamed.clone() })
    }
}

/// The names of the JSON of one endpoint.
fn names(endpoint: &Endpoint) -> Result<Renamed, ScaffoldError> {
    let mut names = Renamed::new();
    for (wit, json) in endpoint.names() {
        let known = names.entry(wit.clone()).or_insert_with(|| json.clone());
        if *known != json {
            return Err(ScaffoldError::Samples {
                place: endpoint.place,
                message: format!("`{known}` and `{json}` would both be called `{wit}`"),
            });
        }
    }
    Ok(names)
}
