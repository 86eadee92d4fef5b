//! FoundationDB's error codes.

/// A code; 0 is success and never an error.
pub(crate) type Code = i32;

macro_rules! codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        $(pub(crate) const $name: Code = $code;)*

        /// What a code is called, with a zero behind it.
        pub(crate) fn text(code: Code) -> &'static std::ffi::CStr {
            match code {
                0 => c"Success",
                $($code => $text,)*
                _ => c"An error of the stand-in's planned faults",
            }
        }
    };
}

codes! {
    TRANSACTION_TOO_OLD = 1007, c"Transaction is too old to perform reads or be committed";
    FUTURE_VERSION = 1009, c"Request for future version";
    NOT_COMMITTED = 1020, c"Transaction not committed due to conflict with another transaction";
    COMMIT_UNKNOWN_RESULT = 1021, c"Transaction may or may not have committed";
    TRANSACTION_CANCELLED = 1025, c"Operation aborted because the transaction was cancelled";
    TRANSACTION_TIMED_OUT = 1031, c"Operation aborted because the transaction timed out";
    TOO_MANY_WATCHES = 1032, c"Too many watches set";
    WATCHES_DISABLED = 1034, c"Watches cannot be set if read your writes is disabled";
    PROCESS_BEHIND = 1037, c"Storage process does not have recent mutations";
    DATABASE_LOCKED = 1038, c"Database is locked";
    CLUSTER_VERSION_CHANGED = 1039, c"The protocol version of the cluster has changed";
    COMMIT_PROXY_MEMORY = 1042, c"Commit proxy commit memory limit exceeded";
    BATCH_THROTTLED = 1051, c"Batch GRV request rate limit exceeded";
    GRV_PROXY_MEMORY = 1078, c"GRV proxy memory limit exceeded";
    OPERATION_CANCELLED = 1101, c"Asynchronous operation cancelled";
    TAG_THROTTLED = 1213, c"Transaction is being throttled due to high tag load";
    PROXY_TAG_THROTTLED = 1223, c"Transaction exceeded proxy tag throttling limit";
    NO_CLUSTER_FILE = 1515, c"No cluster file found in current directory or default location";
    CLIENT_INVALID_OPERATION = 2000, c"Invalid API call";
    KEY_OUTSIDE_LEGAL_RANGE = 2004, c"Key outside legal range";
    INVERTED_RANGE = 2005, c"Range begin key larger than end key";
    INVALID_OPTION_VALUE = 2006, c"Option set with an invalid value";
    INVALID_OPTION = 2007, c"Option not valid in this context";
    NETWORK_NOT_SETUP = 2008, c"Action not possible before the network is configured";
    NETWORK_ALREADY_SETUP = 2009, c"Network can be configured only once";
    READ_VERSION_ALREADY_SET = 2010, c"Transaction already has a read version set";
    FUTURE_NOT_SET = 2015, c"Future not ready";
    USED_DURING_COMMIT = 2017, c"Operation issued while a commit was outstanding";
    INVALID_MUTATION_TYPE = 2018, c"Unrecognized atomic mutation type";
    NO_COMMIT_VERSION = 2021, c"Transaction is read-only and therefore does not have a commit version";
    NETWORK_CANNOT_BE_RESTARTED = 2025, c"Network thread cannot be restarted";
    TRANSACTION_TOO_LARGE = 2101, c"Transaction exceeds byte limit";
    KEY_TOO_LARGE = 2102, c"Key length exceeds limit";
    VALUE_TOO_LARGE = 2103, c"Value length exceeds limit";
    CONNECTION_STRING_INVALID = 2104, c"Connection string invalid";
    UNSUPPORTED_OPERATION = 2108, c"Operation is not supported";
    API_VERSION_UNSET = 2200, c"API version is not set";
    API_VERSION_ALREADY_SET = 2201, c"API version may be set only once";
    API_VERSION_INVALID = 2202, c"API version not valid";
    API_VERSION_NOT_SUPPORTED = 2203, c"API version not supported";
    EXACT_MODE_WITHOUT_LIMITS = 2210, c"EXACT streaming mode requires limits, but none were given";
    INTERNAL_ERROR = 4100, c"An internal error occurred";
}

/// A commit that ended so may have been made.
pub(crate) fn is_maybe_committed(code: Code) -> bool {
    matches!(code, COMMIT_UNKNOWN_RESULT | CLUSTER_VERSION_CHANGED)
}

/// It was not made, and may be tried again.
pub(crate) fn is_retryable_not_committed(code: Code) -> bool {
    matches!(
        code,
        NOT_COMMITTED
            | TRANSACTION_TOO_OLD
            | FUTURE_VERSION
            | DATABASE_LOCKED
            | PROCESS_BEHIND
            | COMMIT_PROXY_MEMORY
            | GRV_PROXY_MEMORY
            | BATCH_THROTTLED
            | TAG_THROTTLED
            | PROXY_TAG_THROTTLED
    )
}
