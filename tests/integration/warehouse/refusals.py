"""What a workspace, its storage and Unity Catalog answer to those whom they do not let in.

Settings of `faults.Fault`, by name. The texts are those of Databricks' gateway, of Unity Catalog
("Error conditions", "Unity Catalog privileges"), and of the error responses that Azure Blob
Storage, Amazon S3 and Google Cloud Storage document; addresses and numbers are examples.
"""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]


def gateway(status: int, message: str, error_class: str | None = None) -> Settings:
    return {
        "kind": "http",
        "status": status,
        "message": message,
        "error_class": error_class or str(status),
    }


def storage(status: int, code: str, message: str) -> Settings:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return {
        "kind": "http",
        "status": status,
        "body": f'<?xml version="1.0" encoding="utf-8"?>\n{body}',
    }


def privilege(text: str, error_class: str = "INSUFFICIENT_PERMISSIONS") -> Settings:
    prefix = "Insufficient privileges:\n" if error_class == "INSUFFICIENT_PERMISSIONS" else ""
    return {"kind": "error", "error_class": error_class, "message": f"{prefix}{text}"}


#: At any request to the workspace.
TOKENS = {
    "token invalid": gateway(403, "Invalid access token."),
    "token ending": gateway(403, "Token is expiring within 30 seconds."),
    "token missing": gateway(
        401, "Credential was not sent or was of an unsupported type for this API."
    ),
}
NETWORKS = {
    "address blocked": gateway(
        403,
        "Source IP address: 203.0.113.7 is blocked by Databricks IP ACL for workspace: "
        "1234567890123456",
    ),
    "network refused": gateway(403, "Unauthorized network access to workspace: 1234567890123456"),
    "public access refused": gateway(
        403, "Public access is not allowed for workspace: 1234567890123456"
    ),
}
WAREHOUSES = {
    "warehouse not allowed": gateway(
        403,
        "PERMISSION_DENIED: 0f1e2d3c-1111-2222-3333-444455556666 is not authorized to use or "
        "monitor this SQL Endpoint. Please contact your administrator.",
        "PERMISSION_DENIED",
    ),
    "warehouse gone": gateway(
        404,
        "RESOURCE_DOES_NOT_EXIST: SQL warehouse 1234567890abcdef does not exist.",
        "RESOURCE_DOES_NOT_EXIST",
    ),
    "warehouse stopped": gateway(
        400,
        "BAD_REQUEST: Cannot start warehouse 'shop' with Serverless Compute since it is disabled "
        "in global warehouse config.",
        "BAD_REQUEST",
    ),
}

#: At an upload.
STORAGES = {
    "Azure firewall": storage(
        403,
        "AuthorizationFailure",
        "This request is not authorized to perform this operation.\n"
        "RequestId:c20a8fc5-601e-0079-32f5-8ae1ab000000\nTime:2026-11-30T10:00:00.0000000Z",
    ),
    "S3 endpoint policy": storage(
        403,
        "AccessDenied",
        "User: arn:aws:sts::123456789012:assumed-role/uc/session is not authorized to perform: "
        "s3:PutObject because no VPC endpoint policy allows the s3:PutObject action",
    ),
    "GCS perimeter": storage(
        403,
        "SecurityPolicyViolated",
        "Request violates VPC Service Controls.",
    ),
}
ADDRESSES = {
    "Azure address ended": storage(
        403,
        "AuthenticationFailed",
        "Server failed to authenticate the request. Make sure the value of Authorization header is "
        "formed correctly including the signature.</Message><AuthenticationErrorDetail>Signature "
        "not valid in the specified time frame</AuthenticationErrorDetail><Message>",
    ),
    "S3 address ended": storage(403, "AccessDenied", "Request has expired"),
    "GCS address ended": storage(400, "ExpiredToken", "Invalid argument."),
}

#: At statements: what the principal lacks, and the pattern of a statement that needs it.
PRIVILEGES = {
    "CREATE SCHEMA": (
        "CREATE SCHEMA",
        privilege(
            "PERMISSION_DENIED: User does not have CREATE SCHEMA on Catalog 'main'.",
            "UNAUTHORIZED_ACCESS",
        ),
    ),
    "CREATE TABLE": (
        "CREATE (OR REPLACE )?TABLE",
        privilege("User does not have CREATE TABLE on Schema 'main.bronze'."),
    ),
    "CREATE VOLUME": (
        "CREATE VOLUME",
        privilege("User does not have CREATE VOLUME on Schema 'main.bronze'."),
    ),
    "USE SCHEMA": (
        "SELECT|MERGE|INSERT",
        privilege("User does not have USE SCHEMA on Schema 'main.bronze'."),
    ),
    "MODIFY": (
        "MERGE|INSERT",
        privilege("User does not have MODIFY on Table 'main.bronze.orders'.", "PERMISSION_DENIED"),
    ),
    "WRITE VOLUME": (
        "PUT ",
        privilege(
            "User does not have WRITE VOLUME on Volume "
            "'main.bronze_staging._dlt_staging_load_volume'."
        ),
    ),
    "MANAGE": (
        "ALTER TABLE|DROP",
        privilege("User is not an owner of Table 'main.bronze.orders'.", "PERMISSION_DENIED"),
    ),
}
