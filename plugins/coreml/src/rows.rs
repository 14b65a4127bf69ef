//! Runs of several rows: each row is a prediction of its own, and CoreML gets all of them at once.

use std::sync::Arc;

use pajamas_pipelines::Value;
use pajamas_plugin_api::Error;

use crate::signature::Port;
use crate::tensor::HostTensor;

/// A tensor that goes into a prediction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Given<'a> {
    /// What it is for.
    pub(crate) port: &'a Port,
    /// Its dimensions, with 1 row where there are rows.
    pub(crate) shape: Vec<i64>,
    /// Its elements.
    pub(crate) data: &'a [u8],
}

/// The inputs of each prediction of a run.
///
/// # Errors
/// Inputs have different numbers of rows.
pub(crate) fn split<'a>(
    inputs: &[(&'a Port, &'a HostTensor)],
    has_rows: bool,
) -> Result<Vec<Vec<Given<'a>>>, Error> {
    let rows = |value: &HostTensor| value.shape().first().and_then(|rows| usize::try_from(*rows).ok());
    let count = match inputs.first() {
        Some((_, first)) if has_rows => rows(first).unwrap_or(1),
        _ => 1,
    };
    let mut predictions = vec![Vec::with_capacity(inputs.len()); count];
    for (port, value) in inputs {
        let mut shape = value.shape().to_vec();
        let mut row_bytes = value.data().len();
        if has_rows {
            if rows(value) != Some(count) {
                return Err(Error::invalid(format!(
                    "input `{}` has the shape {:?}, and the first input has {count} rows: all need as many",
                    port.spec.name,
                    value.shape()
                )));
            }
            if let Some(dim) = shape.first_mut() {
                *dim = 1;
            }
            row_bytes /= count.max(1);
        }
        for (index, prediction) in predictions.iter_mut().enumerate() {
            let data = value.data().get(index * row_bytes..(index + 1) * row_bytes).unwrap_or_default();
            prediction.push(Given { port, shape: shape.clone(), data });
        }
    }
    Ok(predictions)
}

/// The tensors of all predictions, of which each list has the same outputs, below each other.
///
/// # Errors
/// There is no prediction, or an output's rows differ in type or shape.
pub(crate) fn join(predictions: Vec<Vec<HostTensor>>) -> Result<Vec<HostTensor>, Error> {
    if predictions.len() <= 1 {
        return Ok(predictions.into_iter().next().unwrap_or_default());
    }
    let Some(first) = predictions.first() else { return Ok(Vec::new()) };
    let joined = first.iter().enumerate().map(|(index, first)| {
        let mut data = Vec::with_capacity(first.data().len() * predictions.len());
        for prediction in &predictions {
            match prediction.get(index) {
                Some(value) if (value.dtype(), value.shape()) == (first.dtype(), first.shape()) => {
                    data.extend_from_slice(value.data());
                }
                _ => {
                    return Err(Error::internal(
                        "rows of one run gave outputs of different shapes; send them one by one",
                    ));
                }
            }
        }
        let mut shape = first.shape().to_vec();
        if let Some(rows) = shape.first_mut() {
            *rows *= predictions.len() as i64;
        }
        HostTensor::new(first.dtype(), shape, Arc::from(data))
    });
    joined.collect()
}

#[cfg(test)]
mod tests {
    use pajamas_pipelines::TensorSpec;
    use pajamas_plugin_api::Dtype;
    use proptest::prelude::*;

    use super::*;
    use crate::signature::PortKind;

    fn port(name: &str, rest: usize) -> Port {
        let spec = TensorSpec { name: name.to_owned(), dtype: Dtype::U8, shape: vec![None, Some(rest)] };
        Port { spec, kind: PortKind::Array }
    }

    fn tensor(shape: &[i64], data: Vec<u8>) -> HostTensor {
        HostTensor::new(Dtype::U8, shape.to_vec(), data.into()).unwrap()
    }

    #[test]
    fn a_network_without_rows_runs_once_with_what_it_was_given() {
        let (x, value) = (port("x", 2), tensor(&[2, 2], vec![1, 2, 3, 4]));
        let predictions = split(&[(&x, &value)], false).unwrap();
        assert_eq!(predictions, [vec![Given { port: &x, shape: vec![2, 2], data: &[1, 2, 3, 4] }]]);
        assert_eq!(join(vec![vec![value.clone()]]).unwrap(), [value]);
        assert_eq!(split(&[], true).unwrap().len(), 1, "a network of states alone");
    }

    #[test]
    fn different_numbers_of_rows_are_refused_with_the_input() {
        let (x, y) = (port("x", 1), port("y", 1));
        let (two, three) = (tensor(&[2, 1], vec![1, 2]), tensor(&[3, 1], vec![1, 2, 3]));
        let message = split(&[(&x, &two), (&y, &three)], true).unwrap_err().to_string();
        assert!(message.contains("`y`") && message.contains("2 rows"), "{message}");
        let message = join(vec![vec![two], vec![three]]).unwrap_err().to_string();
        assert!(message.contains("different shapes"), "{message}");
    }

    proptest! {
        #[test]
        fn what_is_split_joins_again(rows in 1_usize..9, width in 1_usize..5, seed in any::<u8>()) {
            let data: Vec<u8> = (0..rows * width).map(|index| seed.wrapping_add(index as u8)).collect();
            let (x, value) = (port("x", width), tensor(&[rows as i64, width as i64], data));
            let predictions = split(&[(&x, &value)], true).unwrap();
            prop_assert_eq!(predictions.len(), rows);
            let outputs = predictions.iter().map(|given| {
                given.iter().map(|given| tensor(&given.shape, given.data.to_vec())).collect()
            });
            prop_assert_eq!(join(outputs.collect()).unwrap(), [value]);
        }
    }
}
