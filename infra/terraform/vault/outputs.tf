output "policy_arns" {
  description = "The policy of each duty, to attach to users where no role is assumed."
  value       = { for role, policy in aws_iam_policy.duty : role => policy.arn }
}

output "role_arns" {
  description = "The role of each duty that somebody was named for."
  value       = { for role, made in aws_iam_role.duty : role => made.arn }
}
