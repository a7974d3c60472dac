//! Which variables of this run the restored server needs too: it starts
//! `archive-get`, and inherits nothing from the one who restored. Names only;
//! the values hold secrets.

/// What the hook reads of ours: sections, as variables begin.
const SECTIONS: [&str; 2] = ["WALPOINT_ARCHIVE_", "WALPOINT_ENCRYPTION_"];
/// Of these sections, what is for other commands.
const OTHERS: [&str; 1] = ["WALPOINT_ARCHIVE_PUSH_"];
/// What finds credentials and region for S3 (AWS SDKs and Tools Reference
/// Guide, environment variables).
const AWS: [&str; 17] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
];

/// The variables of this process that the server needs, in alphabetical order.
pub fn needed(on_s3: bool) -> Vec<String> {
    let variables = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    needed_of(variables.filter_map(|(name, _)| name.into_string().ok()), on_s3)
}

fn needed_of(names: impl Iterator<Item = String>, on_s3: bool) -> Vec<String> {
    let begins = |name: &str, with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
    let is_ours = |name: &str| begins(name, &SECTIONS) && !begins(name, &OTHERS);
    let mut needed: Vec<String> =
        names.filter(|name| is_ours(name) || (on_s3 && AWS.contains(&name.as_str()))).collect();
    needed.sort();
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hook_reads_is_named_and_nothing_else() {
        let names = [
            "WALPOINT_POSTGRES_DATA_DIRECTORY",
            "WALPOINT_ENCRYPTION_IDENTITY_FILE",
            "WALPOINT_CONFIG",
            "WALPOINT_ARCHIVE_URL",
            "WALPOINT_ARCHIVE_GET_RETRY_FOR",
            "WALPOINT_ARCHIVE_PUSH_DEADLINE",
            "WALPOINT_CHECK_LOOK_BACK",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_PAGER",
            "PATH",
        ];
        let needed = |on_s3| needed_of(names.iter().map(|name| (*name).to_owned()), on_s3);
        let ours =
            ["WALPOINT_ARCHIVE_GET_RETRY_FOR", "WALPOINT_ARCHIVE_URL", "WALPOINT_ENCRYPTION_IDENTITY_FILE"];
        assert_eq!(needed(false), ours);
        assert_eq!(needed(true), [&["AWS_WEB_IDENTITY_TOKEN_FILE"][..], &ours].concat());
    }
}
