//! The macro that declares a layout once, for Rust and for C.
//!
//! Guarantees: what [`layout!`] declares is `repr(C)` without padding (zerocopy refuses padding), and
//! `c_declaration` prints the same struct with a `_Static_assert` of each offset and of the size, so that a drift does
//! not compile. It does not describe enums or constants; see `constants.rs`.

/// A Rust type that has a C spelling.
pub trait CType {
    /// The C type in front of the name.
    fn c_type() -> alloc::string::String;
    /// What follows the name, such as `[6]`.
    fn c_suffix() -> alloc::string::String {
        alloc::string::String::new()
    }
}

macro_rules! scalar {
    ($($rust:ty => $c:literal;)*) => {$(
        impl CType for $rust {
            fn c_type() -> alloc::string::String {
                alloc::string::String::from($c)
            }
        }
    )*};
}

scalar! {
    u8 => "__u8";
    u16 => "__u16";
    u32 => "__u32";
    u64 => "__u64";
}

impl<T: CType, const N: usize> CType for [T; N] {
    fn c_type() -> alloc::string::String {
        T::c_type()
    }
    fn c_suffix() -> alloc::string::String {
        alloc::format!("[{N}]{}", T::c_suffix())
    }
}

/// Declares a struct for both languages.
#[macro_export]
macro_rules! layout {
    ($($(#[$doc:meta])* struct $name:ident = $c:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Its fields: name, offset and size in bytes.
            pub const FIELDS: &'static [(&'static str, usize, usize)] = &[
                $((stringify!($field), core::mem::offset_of!(Self, $field), core::mem::size_of::<$type>()),)*
            ];

            /// All zero.
            #[must_use]
            pub fn zero() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }

            /// The same struct in C, with assertions of its size and offsets.
            #[must_use]
            pub fn c_declaration() -> alloc::string::String {
                use $crate::declare::CType;
                let mut text = alloc::format!("struct {} {{\n", $c);
                $(text += &alloc::format!(
                    "\t{} {}{};\n", <$type>::c_type(), stringify!($field), <$type>::c_suffix(),
                );)*
                text += "};\n";
                text += &alloc::format!(
                    "_Static_assert(sizeof(struct {}) == {}, \"size\");\n", $c, core::mem::size_of::<Self>(),
                );
                $(text += &alloc::format!(
                    "_Static_assert(__builtin_offsetof(struct {}, {}) == {}, \"offset\");\n",
                    $c, stringify!($field), core::mem::offset_of!(Self, $field),
                );)*
                text
            }
        }

        impl $crate::declare::CType for $name {
            fn c_type() -> alloc::string::String {
                alloc::format!("struct {}", $c)
            }
        }
    )*

        /// All structs of this file in C, in order.
        #[must_use]
        pub fn c_declarations() -> alloc::string::String {
            let mut text = alloc::string::String::new();
            $(text += &$name::c_declaration();)*
            text
        }
    };
}
