//! Reading the options of a pipeline.

use pajamas_plugin_api::{Error, options};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::open::Kind;

/// The options of a pipeline as `O`, whose type denies unknown fields.
///
/// # Errors
/// An option is unknown or has a wrong value; the message names it, the pipeline and what is allowed.
pub(crate) fn parse<O: DeserializeOwned>(kind: Kind, given: &Map<String, Value>) -> Result<O, Error> {
    options::parse_for(&format!(" of the {kind} pipeline"), given)
}
