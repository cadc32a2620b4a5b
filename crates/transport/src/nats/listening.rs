use super::{
    called::CalledName,
    subject::{CallerToken, InvalidSubject, PROTOCOL, VirtualAddress, split_token},
};

/// Where calls are taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listening {
    /// At the address of a virtual component: its subject says who calls, where the NATS server holds callers to it.
    Virtual(VirtualAddress),
    /// Where a component on a host would listen, `{lattice}.{id}.wrpc.0.0.1.>`: nothing says who calls.
    Plain(VirtualAddress),
}

impl From<VirtualAddress> for Listening {
    fn from(address: VirtualAddress) -> Self {
        Self::Virtual(address)
    }
}

impl Listening {
    /// Lattice and id.
    pub const fn address(&self) -> &VirtualAddress {
        match self {
            Self::Virtual(address) | Self::Plain(address) => address,
        }
    }

    /// The tokens that stand before those of callers and of the protocol: `{lattice}.vc.{id}`, or `{lattice}.{id}`. Also the queue group
    /// in which the replicas of the component share its calls.
    pub fn prefix(&self) -> String {
        match self {
            Self::Virtual(address) => address.queue_group(),
            Self::Plain(VirtualAddress { lattice, id }) => format!("{lattice}.{id}"),
        }
    }

    /// What to subscribe to: any caller, any function.
    pub fn subscription(&self) -> String {
        match self {
            Self::Virtual(address) => address.subscription(),
            Self::Plain(_) => format!("{}.{PROTOCOL}.>", self.prefix()),
        }
    }

    /// Reads the subject of a request: what is called, and who calls where it says so.
    ///
    /// # Errors
    ///
    /// [`InvalidSubject`]
    pub fn parse_request(&self, subject: &str) -> Result<(Option<CallerToken>, CalledName), InvalidSubject> {
        match self {
            Self::Virtual(address) => address.parse_request(subject).map(|(caller, name)| (Some(caller), name)),
            Self::Plain(VirtualAddress { lattice, id }) => {
                let tail = split_token(subject, lattice.as_str())
                    .and_then(|rest| split_token(rest, id.as_str()))
                    .ok_or(InvalidSubject::Address)?;
                let name = split_token(tail, PROTOCOL).ok_or(InvalidSubject::Protocol)?;
                Ok((None, name.parse()?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::subject::InvalidName;

    #[test]
    fn a_plain_address_is_that_of_a_component_and_names_no_caller() {
        let address = VirtualAddress { lattice: "demo".parse().unwrap(), id: "shop".parse().unwrap() };
        let plain = Listening::Plain(address.clone());
        assert_eq!((plain.prefix().as_str(), plain.subscription().as_str()), ("demo.shop", "demo.shop.wrpc.0.0.1.>"));
        let (caller, name) = plain.parse_request("demo.shop.wrpc.0.0.1.a:b/c@1.0.0.get").unwrap();
        let header = name.header();
        assert_eq!((caller, header.instance.as_str(), header.function.as_str()), (None, "a:b/c@1.0.0", "get"));
        for (bad, error) in [
            ("demo.shopping.wrpc.0.0.1.f", InvalidSubject::Address),
            ("demo.vc.shop.host.wrpc.0.0.1.f", InvalidSubject::Address),
            ("demo.shop.wrpc.0.0.2.f", InvalidSubject::Protocol),
            ("demo.shop.wrpc.0.0.1.", InvalidSubject::Name(InvalidName::Empty)),
        ] {
            assert_eq!(plain.parse_request(bad).unwrap_err(), error, "{bad}");
        }
        let with_callers = Listening::from(address);
        let (caller, _) = with_callers.parse_request("demo.vc.shop.cart.wrpc.0.0.1.f").unwrap();
        assert_eq!(caller, Some("cart".parse().unwrap()));
        assert_eq!(with_callers.prefix(), "demo.vc.shop");
    }
}
