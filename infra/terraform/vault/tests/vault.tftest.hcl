# Needs no account: `terraform init && terraform test`.
mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = {
      json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}"
    }
  }
  mock_resource "aws_iam_policy" {
    defaults = {
      arn = "arn:aws:iam::123456789012:policy/duty"
    }
  }
}

variables {
  bucket   = "dr-assets-vault"
  estate   = "casino"
  cap_days = 443
  principals = {
    writer  = ["arn:aws:iam::123456789012:role/capture-host"]
    expirer = ["arn:aws:iam::123456789012:role/expiry-host"]
  }
}

run "locks_and_duties" {
  command = plan

  assert {
    condition     = aws_s3_bucket.vault.object_lock_enabled && aws_s3_bucket_versioning.vault.versioning_configuration[0].status == "Enabled"
    error_message = "The bucket has to lock and to keep versions."
  }
  assert {
    condition     = aws_s3_bucket_object_lock_configuration.vault.rule[0].default_retention[0].mode == "COMPLIANCE"
    error_message = "The net under every put is in compliance mode."
  }
  assert {
    condition     = length(aws_iam_policy.duty) == 5 && length(aws_iam_role.duty) == 2
    error_message = "Five policies; roles for those who are named."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_policy.duty["writer"].policy).Statement :
      statement.Effect == "Deny" || length(setintersection(statement.Action, ["s3:DeleteObject", "s3:DeleteObjectVersion"])) == 0
    ])
    error_message = "A writer never deletes."
  }
  assert {
    condition     = strcontains(aws_iam_policy.duty["writer"].policy, "arn:aws:s3:::dr-assets-vault/casino/*") && strcontains(aws_iam_policy.duty["writer"].policy, "\"443\"")
    error_message = "Bucket, folder and cap are filled in."
  }
  assert {
    condition     = strcontains(aws_iam_policy.duty["replicator"].policy, "dr-assets-vault/casino/vault/*")
    error_message = "Where datasets are first written, the replicator puts nothing but facts."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_s3_bucket_policy.vault.policy).Statement : statement.Effect == "Deny"])
    error_message = "The bucket's own policy only refuses."
  }
}

run "a_second_region_is_written_by_the_replicator" {
  command = plan

  variables {
    is_source = false
  }
  assert {
    condition     = strcontains(aws_iam_policy.duty["replicator"].policy, "s3:PutObjectLegalHold") && !strcontains(aws_iam_policy.duty["replicator"].policy, "casino/vault/*")
    error_message = "There it puts, lengthens and places holds."
  }
}

run "one_principal_with_two_duties_is_refused" {
  command = plan

  variables {
    principals = {
      writer  = ["arn:aws:iam::123456789012:role/one"]
      expirer = ["arn:aws:iam::123456789012:role/one"]
    }
  }
  expect_failures = [var.principals]
}
