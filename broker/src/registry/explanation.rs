//! Why a call would be allowed or denied: the decision of a component's sidecar, made here for an operator.

use portcullis_identity::SpiffeId;
use portcullis_policy::{
    CallContext, ComponentFacts, Engine, InvalidEngine, InvalidSlice, Principal, Slice, Transport, Verdict,
    readable_params,
};
use portcullis_value::json::{JsonError, JsonRules, params_from_json, parse_json};
use portcullis_value::{InvalidWit, Limits, Value, Wit};

use super::record::Served;

/// The call an operator asks about.
#[derive(Debug, Clone)]
pub struct Question {
    /// Who would call.
    pub principal: SpiffeId,
    /// wRPC instance name.
    pub instance: String,
    /// wRPC function name.
    pub function: String,
    /// The call's parameters as a JSON object.
    pub params_json: Option<String>,
    /// How the call would come in.
    pub transport: Transport,
}

/// A question without an answer.
#[derive(Debug, thiserror::Error)]
pub enum Unexplained {
    /// The component does not serve this function.
    #[error("`{target}` serves no function `{function}` of `{instance}`: it serves {served}")]
    UnknownFunction {
        /// The component.
        target: String,
        /// As asked.
        instance: String,
        /// As asked.
        function: String,
        /// Interfaces it serves.
        served: String,
    },
    /// The parameters are not those of the function.
    #[error("the parameters do not fit the function: {0}")]
    Params(#[from] JsonError),
    /// A function whose parameters are never decoded has none to give.
    #[error("the parameters of `{0}` are not decoded, so no policy reads them: ask without")]
    Opaque(String),
    /// The stored WIT cannot be read any more.
    #[error("the component's WIT is not usable: {0}")]
    Wit(#[from] InvalidWit),
    /// The stored policies cannot be read any more.
    #[error("the component's policies are not usable: {0}")]
    Slice(#[from] InvalidSlice),
    /// The policy engine refuses them.
    #[error("the component's policies cannot be decided with: {0}")]
    Engine(#[from] InvalidEngine),
}

/// What the component's sidecar would decide.
#[derive(Debug)]
pub struct Explanation {
    /// The decision with its reasons.
    pub verdict: Verdict,
    /// Whether some policy may read the parameters, and none were given.
    pub params_missing: bool,
}

impl Explanation {
    /// Decides `question` with what the sidecar of `served` has.
    ///
    /// # Errors
    /// When the question is about a function the component does not serve, or with parameters it does not have.
    pub fn of(served: &Served, question: &Question) -> Result<Self, Unexplained> {
        let component = &served.component;
        let engine = engine(served)?;
        let Some(action) = engine.action(&question.instance, &question.function) else {
            return Err(Unexplained::unknown_function(served, question));
        };
        let id = &question.principal;
        let principal = Principal::workload(&id.to_string(), id.trust_domain_name(), id.path());
        let wit = Wit::parse(&component.wit)?;
        let values = question.params_json.as_deref().map(|json| params(&wit, question, json)).transpose()?;
        let ty = wit.function(&question.instance, &question.function).and_then(|function| function.typed());
        let readable = values.as_deref().zip(ty).map(|(values, ty)| readable_params(ty, values));
        let call = CallContext { transport: question.transport, link_name: None, params: readable.as_deref() };
        Ok(Self {
            verdict: engine.decide(&principal, action, &call),
            params_missing: values.is_none() && engine.reads_params(action),
        })
    }
}

/// What the component's sidecar decides with.
pub(super) fn engine(served: &Served) -> Result<Engine, Unexplained> {
    let surface = &served.component.surface;
    let facts = ComponentFacts {
        lattice: surface.lattice.clone(),
        id: surface.id.clone(),
        interfaces: surface.interfaces.clone(),
        grants: served.grants.iter().map(ToString::to_string).collect(),
    };
    Ok(Engine::new(&Slice::parse(&served.policies)?, &facts, 0)?)
}

impl Unexplained {
    fn unknown_function(served: &Served, question: &Question) -> Self {
        let surface = &served.component.surface;
        let functions = surface.interfaces.iter().flat_map(|interface| {
            interface.functions.iter().map(|function| format!("`{}#{}`", interface.name, function.name))
        });
        Self::UnknownFunction {
            target: served.record.target.to_string(),
            instance: question.instance.clone(),
            function: question.function.clone(),
            served: functions.collect::<Vec<_>>().join(", "),
        }
    }
}

fn params(wit: &Wit, question: &Question, json: &str) -> Result<Vec<Value>, Unexplained> {
    let function = wit.function(&question.instance, &question.function);
    let Some(ty) = function.and_then(|function| function.typed()) else {
        return Err(Unexplained::Opaque(question.function.clone()));
    };
    let limits = Limits::default();
    let tree = parse_json(json.as_bytes(), &limits)?;
    Ok(params_from_json(ty, &tree, &JsonRules::default(), &limits)?)
}
