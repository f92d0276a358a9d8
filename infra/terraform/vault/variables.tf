variable "bucket" {
  type        = string
  description = "The vault's bucket, as the estate declares it."
}

variable "estate" {
  type        = string
  description = "The estate's name: the folder that everything of ours lies in."
}

variable "cap_days" {
  type        = number
  description = "The longest lock in days: `dr-assets roles show VAULT` prints it. What asks for more is refused."

  validation {
    condition     = var.cap_days >= 14 && var.cap_days <= 8770
    error_message = "A cap is between 14 days (a micro-segment's lock) and 8770 (a key's at most)."
  }
}

variable "mode" {
  type        = string
  default     = "COMPLIANCE"
  description = "The lock mode of every put; `*` where some dataset asks for governance only."

  validation {
    condition     = contains(["COMPLIANCE", "*"], var.mode)
    error_message = "COMPLIANCE, or * for both modes."
  }
}

variable "default_lock_days" {
  type        = number
  default     = 14
  description = "The bucket's own lock: the net under every put, also of those whom no policy here binds."
}

variable "is_source" {
  type        = bool
  default     = true
  description = "Whether datasets are first written here and copied on: then the replicator only reads, but for its facts."
}

variable "principals" {
  type        = map(list(string))
  default     = {}
  description = "Who may assume each role (ARNs), by role; a role that nobody is named for is not made."

  validation {
    condition     = length(setsubtract(keys(var.principals), ["writer", "reader", "roller", "replicator", "expirer"])) == 0
    error_message = "The roles are writer, reader, roller, replicator and expirer."
  }

  validation {
    condition     = length(flatten(values(var.principals))) == length(distinct(flatten(values(var.principals))))
    error_message = "One principal has two roles: duties that are not apart are one duty."
  }
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "On everything that is made here."
}
