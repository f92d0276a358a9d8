# A vault: one bucket that locks what is put, and one IAM policy (and role) for each duty.
# The policies are written by scripts/render_roles.py from the table that docs/roles.md shows; don't edit them here.

locals {
  scope = {
    bucket   = var.bucket
    estate   = var.estate
    cap_days = tostring(var.cap_days)
    mode     = var.mode
  }
  replicator = var.is_source ? "replicator-at-source" : "replicator"
  documents = {
    writer     = "writer"
    reader     = "reader"
    roller     = "roller"
    replicator = local.replicator
    expirer    = "expirer"
  }
}

resource "aws_s3_bucket" "vault" {
  bucket              = var.bucket
  object_lock_enabled = true
  force_destroy       = false
  tags                = var.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "vault" {
  bucket = aws_s3_bucket.vault.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "vault" {
  bucket = aws_s3_bucket.vault.id

  rule {
    default_retention {
      mode = var.mode == "COMPLIANCE" ? "COMPLIANCE" : "GOVERNANCE"
      days = var.default_lock_days
    }
  }

  depends_on = [aws_s3_bucket_versioning.vault]
}

resource "aws_s3_bucket_public_access_block" "vault" {
  bucket                  = aws_s3_bucket.vault.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "vault" {
  bucket = aws_s3_bucket.vault.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "vault" {
  bucket = aws_s3_bucket.vault.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256" # what lies here is sealed before it is sent; this is for auditors' lists
    }
  }
}

resource "aws_s3_bucket_policy" "vault" {
  bucket     = aws_s3_bucket.vault.id
  policy     = templatefile("${path.module}/policies/bucket.json", local.scope)
  depends_on = [aws_s3_bucket_public_access_block.vault]
}

resource "aws_iam_policy" "duty" {
  for_each = local.documents

  name        = "${var.bucket}-${var.estate}-${each.key}"
  description = "dr-assets: the ${each.key} of vault ${var.bucket}"
  policy      = templatefile("${path.module}/policies/${each.value}.json", local.scope)
  tags        = var.tags
}

data "aws_iam_policy_document" "assume" {
  for_each = var.principals

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = each.value
    }
  }
}

resource "aws_iam_role" "duty" {
  for_each = var.principals

  name                 = "${var.bucket}-${var.estate}-${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.assume[each.key].json
  permissions_boundary = aws_iam_policy.duty[each.key].arn # whatever else is attached: no more than the duty
  tags                 = var.tags
}

resource "aws_iam_role_policy_attachment" "duty" {
  for_each = var.principals

  role       = aws_iam_role.duty[each.key].name
  policy_arn = aws_iam_policy.duty[each.key].arn
}
