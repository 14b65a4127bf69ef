//! Writes ONNX files by hand, for tests: field numbers are those of `onnx.proto`.

/// A field of varint type.
pub(crate) fn int(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// A field of length-delimited type: a text, bytes or a message.
pub(crate) fn bytes(number: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut encoded = Vec::new();
    while value >= 0x80 {
        encoded.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    encoded.push(value as u8);
    encoded
}

/// `ValueInfoProto` of a tensor; a negative dimension is a name.
pub(crate) fn tensor_info(name: &str, kind: u64, dims: &[i64]) -> Vec<u8> {
    let dims: Vec<u8> = dims
        .iter()
        .flat_map(|dim| {
            let unknown = |_| bytes(2, format!("dim{}", dim.unsigned_abs()));
            bytes(1, u64::try_from(*dim).map_or_else(unknown, |dim| int(1, dim)))
        })
        .collect();
    let tensor = [int(1, kind), bytes(2, dims)].concat();
    [bytes(1, name), bytes(2, bytes(1, tensor))].concat()
}

/// `StringStringEntryProto`.
pub(crate) fn entry(key: &str, value: &str) -> Vec<u8> {
    [bytes(1, key), bytes(2, value)].concat()
}

/// `TensorProto` with its data; `dims` as proto2 writes them.
pub(crate) fn weights(name: &str, kind: u64, dims: &[u64], data: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| int(1, *dim)).collect();
    [dims, int(2, kind), bytes(8, name), bytes(9, data)].concat()
}

/// `ModelProto` of a graph's fields, for operators of version 17.
pub(crate) fn model(graph: &[Vec<u8>]) -> Vec<u8> {
    let graph = [graph.concat(), bytes(2, "graph")].concat();
    let operators = [bytes(1, ""), int(2, 17)].concat();
    let metadata = bytes(14, entry("task", "none"));
    [int(1, 8), bytes(2, "tests"), bytes(7, graph), bytes(8, operators), metadata].concat()
}
