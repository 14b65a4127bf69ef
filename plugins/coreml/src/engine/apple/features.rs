//! Tensors as CoreML's features, and back. Everything is copied: what CoreML computes with then has the layout and the life
//! time that it wants.
#![expect(
    unsafe_code,
    reason = "the framework's methods are declared in Objective-C, and Rust cannot check them"
)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use block2::RcBlock;
use objc2::AllocAnyThread;
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, ProtocolObject};
use objc2_core_ml::{
    MLDictionaryFeatureProvider, MLFeatureProvider, MLFeatureValue, MLMultiArray, MLMultiArrayDataType,
};
use objc2_core_video::{
    CVPixelBuffer, CVPixelBufferCreate, CVPixelBufferGetBaseAddress, CVPixelBufferGetBytesPerRow,
    CVPixelBufferGetHeight, CVPixelBufferGetPixelFormatType, CVPixelBufferGetWidth,
    CVPixelBufferLockBaseAddress, CVPixelBufferLockFlags, CVPixelBufferUnlockBaseAddress,
    kCVPixelFormatType_32BGRA, kCVPixelFormatType_OneComponent8, kCVPixelFormatType_OneComponent16Half,
    kCVReturnSuccess,
};
use objc2_foundation::{NSArray, NSDictionary, NSError, NSInteger, NSNumber, NSString};
use pajamas_plugin_api::{Dtype, Error};

use super::super::layout;
use super::Provider;
use crate::rows::Given;
use crate::signature::{Port, PortKind};
use crate::spec::Color;
use crate::tensor::HostTensor;

/// The inputs of one prediction.
pub(super) fn provider(row: &[Given<'_>]) -> Result<Provider, Error> {
    let names: Vec<_> = row.iter().map(|given| NSString::from_str(&given.port.spec.name)).collect();
    let values = row.iter().map(|given| Ok(Retained::<AnyObject>::from(value(given)?)));
    let values = values.collect::<Result<Vec<_>, Error>>()?;
    let keys: Vec<&NSString> = names.iter().map(|name| &**name).collect();
    let dictionary = NSDictionary::from_retained_objects(&keys, &values);
    // SAFETY: the keys are texts and the values feature values, which is what the method asks for.
    let provider = unsafe {
        MLDictionaryFeatureProvider::initWithDictionary_error(
            MLDictionaryFeatureProvider::alloc(),
            &dictionary,
        )
    };
    let provider = provider.map_err(|error| framework("take the inputs", &error))?;
    Ok(ProtocolObject::from_retained(provider))
}

fn value(given: &Given<'_>) -> Result<Retained<MLFeatureValue>, Error> {
    let name = given.port.spec.name.as_str();
    let wrong_size = || Error::internal(format!("input `{name}` is no single number"));
    match given.port.kind {
        PortKind::Array => {
            let array = multi_array(given)?;
            // SAFETY: the argument is alive.
            Ok(unsafe { MLFeatureValue::featureValueWithMultiArray(&array) })
        }
        PortKind::Image(color) => {
            let buffer = pixel_buffer(given, color)?;
            // SAFETY: the argument is alive.
            Ok(unsafe { MLFeatureValue::featureValueWithPixelBuffer(&buffer) })
        }
        PortKind::Integer => {
            let bytes = given.data.try_into().map_err(|_| wrong_size())?;
            // SAFETY: the argument is a number.
            Ok(unsafe { MLFeatureValue::featureValueWithInt64(i64::from_ne_bytes(bytes)) })
        }
        PortKind::Number => {
            let bytes = given.data.try_into().map_err(|_| wrong_size())?;
            // SAFETY: the argument is a number.
            Ok(unsafe { MLFeatureValue::featureValueWithDouble(f64::from_ne_bytes(bytes)) })
        }
        PortKind::Probabilities(_) => Err(Error::internal(format!("input `{name}` is a dictionary"))),
    }
}

fn multi_array(given: &Given<'_>) -> Result<Retained<MLMultiArray>, Error> {
    let spec = &given.port.spec;
    let kind = data_type(spec.dtype)
        .ok_or_else(|| Error::internal(format!("CoreML has no arrays of {:?}", spec.dtype)))?;
    let sizes: Vec<_> = given.shape.iter().map(|size| NSNumber::new_i64(*size)).collect();
    let shape = NSArray::from_retained_slice(&sizes);
    // SAFETY: the shape has numbers, as its type says, and the type of elements is one of CoreML's.
    let array = unsafe { MLMultiArray::initWithShape_dataType_error(MLMultiArray::alloc(), &shape, kind) };
    let array = array.map_err(|error| framework(&format!("make the input `{}`", spec.name), &error))?;
    let shape: Vec<usize> = given.shape.iter().filter_map(|size| usize::try_from(*size).ok()).collect();
    let copied = Cell::new(None);
    let copy = |bytes: NonNull<c_void>, len: NSInteger, strides: NonNull<NSArray<NSNumber>>| {
        // SAFETY: during the call CoreML lends `len` bytes, which nobody else uses, and an array of numbers.
        let (target, strides) = unsafe {
            let len = usize::try_from(len).unwrap_or_default();
            (slice::from_raw_parts_mut(bytes.cast::<u8>().as_ptr(), len), strides.as_ref())
        };
        copied.set(layout::scatter(given.data, target, &shape, &sizes_of(strides), spec.dtype.size_bytes()));
    };
    with_mutable_bytes(&array, &copy);
    match copied.get() {
        Some(()) => Ok(array),
        None => Err(Error::internal(format!("the input `{}` does not fit its array", spec.name))),
    }
}

/// Calls `copy` with the bytes of an array, their number and the strides.
fn with_mutable_bytes(
    array: &MLMultiArray,
    copy: &dyn Fn(NonNull<c_void>, NSInteger, NonNull<NSArray<NSNumber>>),
) {
    let block = block2::StackBlock::new(
        |bytes: NonNull<c_void>, len: NSInteger, strides: NonNull<NSArray<NSNumber>>| {
            copy(bytes, len, strides)
        },
    );
    // SAFETY: the method calls the block before it returns, and does not keep it.
    unsafe { array.getMutableBytesWithHandler(&block) };
}

/// A picture of a tensor of rows, columns and channels.
fn pixel_buffer(given: &Given<'_>, color: Color) -> Result<Retained<CVPixelBuffer>, Error> {
    let name = given.port.spec.name.as_str();
    let side = |index: usize| given.shape.get(index).and_then(|size| usize::try_from(*size).ok());
    let (Some(height), Some(width)) = (side(1), side(2)) else {
        return Err(Error::internal(format!("the picture `{name}` has no rows and columns")));
    };
    let mut buffer = std::ptr::null_mut();
    // SAFETY: `buffer` outlives the call, which writes a picture that is ours, or says that it did not.
    let status = unsafe {
        CVPixelBufferCreate(None, width, height, format_of(color), None, NonNull::from(&mut buffer))
    };
    // SAFETY: on success it is a picture that is ours.
    let buffer = (status == kCVReturnSuccess).then(|| unsafe { Retained::from_raw(buffer) }).flatten();
    let buffer = buffer.ok_or_else(|| {
        Error::internal(format!("cannot make a picture of {width} x {height} pixels: status {status}"))
    })?;
    let (tensor_bytes, flags) = (bytes_of(color), CVPixelBufferLockFlags(0));
    let row_bytes = width * tensor_bytes;
    let copied = with_pixels(&buffer, flags, |memory, stride| {
        let rows = given.data.chunks(row_bytes.max(1)).zip(memory.chunks_mut(stride.max(1)));
        rows.take(height).try_for_each(|(row, target)| layout::write_row(row, target, tensor_bytes))
    });
    copied.map(|()| buffer).ok_or_else(|| Error::internal(format!("the picture `{name}` cannot be written")))
}

/// Calls `visit` with the memory of a picture and the bytes from one row to the next. `None` if it cannot be reached.
fn with_pixels<T>(
    buffer: &CVPixelBuffer,
    flags: CVPixelBufferLockFlags,
    visit: impl FnOnce(&mut [u8], usize) -> Option<T>,
) -> Option<T> {
    // SAFETY: the picture is alive, and is unlocked with the same flags below.
    if unsafe { CVPixelBufferLockBaseAddress(buffer, flags) } != kCVReturnSuccess {
        return None;
    }
    let stride = CVPixelBufferGetBytesPerRow(buffer);
    let len = stride.checked_mul(CVPixelBufferGetHeight(buffer));
    let start = NonNull::new(CVPixelBufferGetBaseAddress(buffer).cast::<u8>());
    let result = start.zip(len).and_then(|(start, len)| {
        // SAFETY: while it is locked, a picture of one plane has so many rows of so many bytes there, and nobody else has it.
        visit(unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) }, stride)
    });
    // SAFETY: it was locked with these flags above. A failure leaves it locked, which harms nobody but this picture.
    let _ = unsafe { CVPixelBufferUnlockBaseAddress(buffer, flags) };
    result
}

/// One output of a prediction.
pub(super) fn read(result: &Provider, port: &Port) -> Result<HostTensor, Error> {
    let name = port.spec.name.as_str();
    let missing =
        || Error::internal(format!("CoreML gave no output `{name}` of the type that the model declares"));
    // SAFETY: the argument is alive.
    let value = unsafe { result.featureValueForName(&NSString::from_str(name)) }.ok_or_else(missing)?;
    match &port.kind {
        PortKind::Array => {
            // SAFETY: a property without arguments, which is absent for other types.
            let array = unsafe { value.multiArrayValue() }.ok_or_else(missing)?;
            read_array(&array, port)
        }
        PortKind::Image(color) => {
            // SAFETY: a property without arguments, which is absent for other types.
            let buffer = unsafe { value.imageBufferValue() }.ok_or_else(missing)?;
            read_picture(&buffer, *color, port)
        }
        PortKind::Integer => {
            // SAFETY: a property without arguments, which is 0 for other types.
            let number = unsafe { value.int64Value() };
            HostTensor::new(Dtype::I64, Vec::new(), Arc::from(number.to_ne_bytes()))
        }
        PortKind::Number => {
            // SAFETY: a property without arguments, which is 0 for other types.
            let number = unsafe { value.doubleValue() };
            HostTensor::new(Dtype::F64, Vec::new(), Arc::from(number.to_ne_bytes()))
        }
        PortKind::Probabilities(labels) => {
            // SAFETY: a property without arguments, which is empty for other types.
            let dictionary = unsafe { value.dictionaryValue() };
            probabilities(&dictionary, labels)
        }
    }
}

fn read_array(array: &MLMultiArray, port: &Port) -> Result<HostTensor, Error> {
    // SAFETY: properties without arguments.
    let (kind, shape, strides) = unsafe { (array.dataType(), array.shape(), array.strides()) };
    let name = port.spec.name.as_str();
    if Some(kind) != data_type(port.spec.dtype) {
        return Err(Error::internal(format!(
            "CoreML gave the output `{name}` in another type than the model declares, {:?}",
            port.spec.dtype
        )));
    }
    let (shape, strides) = (sizes_of(&shape), sizes_of(&strides));
    let data = RefCell::new(None);
    let block = RcBlock::new(|bytes: NonNull<c_void>, len: NSInteger| {
        // SAFETY: during the call CoreML lends `len` bytes.
        let source = unsafe {
            slice::from_raw_parts(bytes.cast::<u8>().as_ptr(), usize::try_from(len).unwrap_or_default())
        };
        data.replace(layout::gather(source, &shape, &strides, port.spec.dtype.size_bytes()));
    });
    // SAFETY: the method calls the block before it returns, and does not keep it.
    unsafe { array.getBytesWithHandler(&block) };
    drop(block);
    let data = data.into_inner();
    let data = data.ok_or_else(|| Error::internal(format!("the output `{name}` does not fit its memory")))?;
    let shape = shape.iter().filter_map(|size| i64::try_from(*size).ok()).collect();
    HostTensor::new(port.spec.dtype, shape, Arc::from(data))
}

fn read_picture(buffer: &CVPixelBuffer, color: Color, port: &Port) -> Result<HostTensor, Error> {
    let name = port.spec.name.as_str();
    if CVPixelBufferGetPixelFormatType(buffer) != format_of(color) {
        return Err(Error::unsupported(format!(
            "the output `{name}` is a picture of an unknown kind of pixels"
        )));
    }
    let (width, height) = (CVPixelBufferGetWidth(buffer), CVPixelBufferGetHeight(buffer));
    let tensor_bytes = bytes_of(color);
    let data = with_pixels(buffer, CVPixelBufferLockFlags::ReadOnly, |memory, stride| {
        let mut data = Vec::with_capacity(width.checked_mul(height)?.checked_mul(tensor_bytes)?);
        let mut rows = memory.chunks(stride.max(1)).take(height);
        rows.try_for_each(|row| layout::read_row(row, width, tensor_bytes, &mut data))?;
        Some(data)
    });
    let data = data.ok_or_else(|| Error::internal(format!("the picture `{name}` cannot be read")))?;
    let channels = if color == Color::Rgb { 3 } else { 1 };
    let side = |pixels: usize| i64::try_from(pixels).unwrap_or(i64::MAX);
    HostTensor::new(port.spec.dtype, vec![1, side(height), side(width), channels], Arc::from(data))
}

/// The numbers of a dictionary in the order of `labels`.
fn probabilities(
    dictionary: &NSDictionary<AnyObject, NSNumber>,
    labels: &[String],
) -> Result<HostTensor, Error> {
    let (keys, numbers) = dictionary.to_vecs();
    let by_label: HashMap<String, f32> =
        keys.iter().zip(&numbers).filter_map(|(key, number)| Some((label(key)?, number.as_f32()))).collect();
    let data = labels.iter().flat_map(|label| by_label.get(label).copied().unwrap_or(0.0).to_ne_bytes());
    let shape = vec![1, i64::try_from(labels.len()).unwrap_or(i64::MAX)];
    HostTensor::new(Dtype::F32, shape, data.collect())
}

/// The name of a class, which is a text or an integer.
pub(super) fn label(object: &AnyObject) -> Option<String> {
    if let Some(text) = object.downcast_ref::<NSString>() {
        return Some(text.to_string());
    }
    object.downcast_ref::<NSNumber>().map(|number| number.as_i64().to_string())
}

/// Dimensions or strides.
fn sizes_of(numbers: &NSArray<NSNumber>) -> Vec<usize> {
    numbers.iter().map(|number| number.as_usize()).collect()
}

fn data_type(dtype: Dtype) -> Option<MLMultiArrayDataType> {
    Some(match dtype {
        Dtype::F16 => MLMultiArrayDataType::Float16,
        Dtype::F32 => MLMultiArrayDataType::Float32,
        Dtype::F64 => MLMultiArrayDataType::Double,
        Dtype::I8 => MLMultiArrayDataType::Int8,
        Dtype::I32 => MLMultiArrayDataType::Int32,
        _ => return None,
    })
}

fn format_of(color: Color) -> u32 {
    match color {
        Color::Rgb => kCVPixelFormatType_32BGRA,
        Color::Gray => kCVPixelFormatType_OneComponent8,
        Color::GrayF16 => kCVPixelFormatType_OneComponent16Half,
    }
}

/// Bytes of a pixel in a tensor.
fn bytes_of(color: Color) -> usize {
    match color {
        Color::Rgb => 3,
        Color::Gray => 1,
        Color::GrayF16 => 2,
    }
}

fn framework(doing: &str, error: &NSError) -> Error {
    Error::internal(format!("CoreML cannot {doing}: {}", error.localizedDescription()))
}
