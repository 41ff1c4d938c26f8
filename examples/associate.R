# An association with an estimated outcome in base R: the numbers of `ukb-infer associate` for a linear model.
#
#   Rscript examples/associate.R RUN LABELS.csv PHENOTYPES.csv OUTCOME COVARIATES
#   Rscript examples/associate.R run fat.csv phenotypes.csv liverFat age,sex,bmi
#
# RUN is the folder of a run of one visit. LABELS has eid and the outcome measured in some participants whom the module
# never saw, PHENOTYPES has eid and the covariates as numbers; both are CSV files with plain column names. Printed: CSV
# rows of the measured alone and of Chen and Chen's estimator, which corrects them by the estimates of everyone
# (docs/valid-use.md), with robust standard errors (HC2).

read_people <- function(path) {
  read.csv(path, colClasses = c(eid = "character"), check.names = FALSE)
}

# Estimates that quality flags allow, one row per participant: the highest array.
read_estimates <- function(run, outcome) {
  table <- read_people(file.path(run, "estimates.csv"))
  quality <- read_people(file.path(run, "quality.csv"))
  affected <- vapply(strsplit(as.character(quality$affected), ";"), function(x) outcome %in% x, logical(1))
  bad <- quality$scan[(!is.na(quality$level) & quality$level == "unusable") | affected]
  table <- table[!(table$scan %in% bad), ]
  table <- table[order(table$eid, -table$array), ]
  if (length(unique(table$instance)) > 1) stop("the run has several visits; keep one instance of estimates.csv")
  table <- table[!duplicated(table$eid), ]
  data.frame(eid = table$eid, estimate = table[[paste0(outcome, "_mean")]])
}

inflate <- function(leverage) 1 / sqrt(pmax(1 - leverage, 0.05))

# Least squares with each row's contribution to the coefficients; their squares add up to the HC2 variance.
fit <- function(x, y) {
  inverse <- solve(crossprod(x))
  beta <- drop(inverse %*% crossprod(x, y))
  residual <- drop(y - x %*% beta) * inflate(rowSums((x %*% inverse) * x))
  list(beta = beta, parts = (x * residual) %*% inverse)
}

# J. Chen and H. Chen, J. R. Stat. Soc. B 62 (2000) 449.
chen_chen <- function(x, estimate, measured) {
  few <- !is.na(measured)
  own <- fit(x[few, , drop = FALSE], measured[few])
  everyone <- fit(x, estimate)
  same <- fit(x[few, , drop = FALSE], estimate[few])
  moved <- -everyone$parts
  moved[few, ] <- moved[few, ] + same$parts
  parts <- matrix(0, nrow(x), ncol(x))
  parts[few, ] <- own$parts
  scale <- sqrt(colSums(moved^2)) # columns of one length, for a stable decomposition
  moved <- sweep(moved, 2, scale, "/")
  shift <- (same$beta - everyone$beta) / scale
  decomposed <- qr(moved)
  weights <- qr.coef(decomposed, parts)
  left <- (parts - moved %*% weights) * inflate(rowSums(qr.Q(decomposed)^2))
  list(labels_only = own, chen_chen = list(beta = own$beta - drop(shift %*% weights), parts = left))
}

given <- commandArgs(trailingOnly = TRUE)
if (length(given) != 5) stop("usage: Rscript associate.R RUN LABELS.csv PHENOTYPES.csv OUTCOME COVARIATES")
outcome <- given[4]
covariates <- strsplit(given[5], ",")[[1]]
people <- merge(read_estimates(given[1], outcome), read_people(given[3])[, c("eid", covariates)], by = "eid")
labels <- read_people(given[2])
people$measured <- labels[[outcome]][match(people$eid, labels$eid)]
people <- people[complete.cases(people[, c("estimate", covariates)]), ]
x <- cbind(Intercept = 1, as.matrix(people[, covariates, drop = FALSE]))
found <- chen_chen(x, people$estimate, people$measured)
few <- sum(!is.na(people$measured))
for (name in names(found)) {
  se <- sqrt(colSums(found[[name]]$parts^2))
  df <- rep(few - ncol(x), ncol(x))
  if (name == "chen_chen") { # degrees of freedom of the variance itself (Bell and McCaffrey)
    df <- pmin(df, 3 * se^4 / colSums(found[[name]]$parts^4))
  }
  beta <- found[[name]]$beta
  rows <- data.frame(
    term = colnames(x), estimator = name, estimate = beta, se = se, lower = beta - qt(0.975, df) * se,
    upper = beta + qt(0.975, df) * se, p = 2 * pt(-abs(beta / se), df)
  )
  write.table(rows, sep = ",", row.names = FALSE, col.names = name == names(found)[1], quote = FALSE)
}
